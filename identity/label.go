// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/weft-net/weft/kvstore/schema"
)

// Sources of labels: who says that an endpoint has it.
const (
	SourceKubernetes = "k8s"
	SourceAny        = "any" // in selectors: whatever the source
	SourceUnspec     = "unspec"
	SourceReserved   = "reserved"
	SourceCIDR       = "cidr"
	SourceCIDRGroup  = "cidrgroup"
	SourceFQDN       = "fqdn"
	SourceNode       = "node"
	SourceCNI        = "cni"
	SourceGenerated  = "gen"
	SourceDirectory  = "directory"
)

// Keys of labels that weft adds to those of an endpoint, always with SourceKubernetes.
const (
	ClusterKey        = schema.ClusterLabelKey
	NamespaceKey      = "io.kubernetes.pod.namespace"
	ServiceAccountKey = "io.cilium.k8s.policy.serviceaccount"
)

// Label is one label. The zero Value is common.
type Label struct{ Source, Key, Value string }

// String returns source:key=value, with the equals sign even if the value is empty.
func (l Label) String() string { return l.Source + ":" + l.Key + "=" + l.Value }

// FullKey returns source:key.
func (l Label) FullKey() string { return l.Source + ":" + l.Key }

// ParseLabel reads [source:]key[=value]. A label without a source gets the one given.
func ParseLabel(text, source string) (Label, error) {
	name, value, _ := strings.Cut(text, "=")
	src, key, ok := strings.Cut(name, ":")
	if !ok || src == "" {
		src, key = source, strings.TrimPrefix(name, ":")
	}
	l := Label{Source: src, Key: key, Value: value}
	return l, l.validate()
}

// validate refuses what has no wire form, or one that would be read as something else.
func (l Label) validate() error {
	switch {
	case l.Key == "":
		return fmt.Errorf("label %q: no key", l)
	case l.Source == "" || strings.ContainsAny(l.Source, ":=;/"):
		return fmt.Errorf("label %q: source %q", l, l.Source)
	case strings.ContainsAny(l.Key, "=;"):
		return fmt.Errorf("label %q: key has an equals sign or a semicolon", l)
	case strings.Contains(l.Value, ";"):
		return fmt.Errorf("label %q: value has a semicolon", l)
	}
	for _, s := range [...]string{l.Source, l.Key, l.Value} {
		if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("label %q: control character or invalid UTF-8", l)
		}
	}
	return nil
}
