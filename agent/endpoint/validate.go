// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/weft-net/weft/kvstore/schema"
)

// Limits of what a Spec may hold: a row must stay far below what the store takes.
const (
	maxName   = 253
	maxLabels = 256
	maxLabel  = 1024
	maxPorts  = 256
)

var name = regexp.MustCompile(`^[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?$`)

// validate checks s and fills in what may be left out.
func validate(s *Spec) error {
	for _, n := range []struct{ field, text string }{{"namespace", s.Name.Namespace}, {"name", s.Name.Name}} {
		if len(n.text) > maxName || !name.MatchString(n.text) {
			return &SpecError{n.field, fmt.Sprintf("%q is not a name: use letters, digits, '-', '_' and '.'", n.text)}
		}
	}
	if !filepath.IsAbs(s.NetNS) {
		return &SpecError{"netns", fmt.Sprintf("%q is not an absolute path, such as /run/netns/web", s.NetNS)}
	}
	if s.Interface == "" {
		s.Interface = "eth0"
	}
	if len(s.Interface) > 15 || strings.ContainsAny(s.Interface, "/ \t\n\x00") || s.Interface == "." || s.Interface == ".." {
		return &SpecError{"interface", fmt.Sprintf("%q is not a device name", s.Interface)}
	}
	if err := validateAddresses(s.Addresses); err != nil {
		return err
	}
	if err := validateLabels(s.Labels); err != nil {
		return err
	}
	if !clean(s.ServiceAccount) || len(s.ServiceAccount) > maxName {
		return &SpecError{"service account", fmt.Sprintf("%q cannot be used", s.ServiceAccount)}
	}
	return validatePorts(s.NamedPorts)
}

func validateAddresses(addresses []netip.Addr) error {
	seen := map[bool]bool{}
	for _, a := range addresses {
		switch {
		case !a.IsValid() || a.Is4In6() || a.Zone() != "":
			return &SpecError{"addresses", fmt.Sprintf("%v cannot be used", a)}
		case seen[a.Is6()]:
			return &SpecError{"addresses", "more than one of a family"}
		}
		seen[a.Is6()] = true
	}
	return nil
}

func validateLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return &SpecError{"labels", fmt.Sprintf("%d are more than %d", len(labels), maxLabels)}
	}
	for k, v := range labels {
		source, key, ok := strings.Cut(k, ":")
		switch {
		case !ok || source == "" || key == "":
			return &SpecError{"labels", fmt.Sprintf("%q is not source:key", k)}
		case source == "reserved":
			return &SpecError{"labels", fmt.Sprintf("%q: the source reserved is weft's own", k)}
		case len(k)+len(v) > maxLabel:
			return &SpecError{"labels", fmt.Sprintf("%q: more than %d bytes", k[:min(len(k), 32)], maxLabel)}
		case strings.ContainsAny(k, ";= \t\n") || strings.ContainsAny(v, ";\n") || !clean(k) || !clean(v):
			// The store's form of a label set has no escapes: a ';' would end the label.
			return &SpecError{"labels", fmt.Sprintf("%q=%q: has a character that label sets cannot hold", k, v)}
		}
	}
	return nil
}

func validatePorts(ports []schema.NamedPort) error {
	if len(ports) > maxPorts {
		return &SpecError{"named ports", fmt.Sprintf("%d are more than %d", len(ports), maxPorts)}
	}
	seen := map[string]bool{}
	for _, p := range ports {
		switch {
		case p.Name == "" || len(p.Name) > 63 || !name.MatchString(p.Name):
			return &SpecError{"named ports", fmt.Sprintf("%q is not a name", p.Name)}
		case p.Port == 0:
			return &SpecError{"named ports", fmt.Sprintf("%s: 0 is not a port", p.Name)}
		case seen[p.Name]:
			return &SpecError{"named ports", fmt.Sprintf("%s: given twice", p.Name)}
		}
		seen[p.Name] = true
	}
	return nil
}

// clean says that a text can stand in the store.
func clean(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }
