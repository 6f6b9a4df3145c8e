// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/weft-net/weft/kvstore/schema"
)

// Parsed is one service of a file.
type Parsed struct {
	Key        schema.DefinitionKey
	Definition schema.Definition
	// Allocate: the file says nothing of virtual addresses, so the service takes one of each
	// service CIDR. A service with an empty list of them is headless.
	Allocate bool
	// Warnings name what will not be taken as written.
	Warnings []Problem
}

// FieldError says which field of a file is wrong and what to do.
type FieldError struct {
	// Document counts from 1 in a file with several.
	Document int
	// Field is a path such as ports[1].port; empty for the document as a whole.
	Field string
	Text  string
}

// Error gives "document 2: ports[1].port: 0 is not a port: write 1 to 65535".
func (e *FieldError) Error() string {
	s := fmt.Sprintf("document %d: ", e.Document)
	if e.Field != "" {
		s += e.Field + ": "
	}
	return s + e.Text
}

// ParseFile reads services that a person wrote, as YAML or JSON, one in a document:
//
//	namespace: default            # default
//	name: web
//	annotations: {service.cilium.io/global: "true"}
//	ports: [{name: http, port: 80, targetPort: http}]
//	selector: {app: web}          # or backends: [{address: 10.0.0.9, ports: {http: 8080}}]
//	vips: [10.96.0.9]             # absent: taken from the service CIDR; []: headless
//
// All errors are returned at once, joined, each a *FieldError.
func ParseFile(data []byte) ([]Parsed, error) {
	var out []Parsed
	var errs []error
	seen := make(map[schema.DefinitionKey]int)
	for i, doc := range documents(data) {
		p, problems := parseDocument(doc)
		for _, e := range problems {
			e.Document = i + 1
			errs = append(errs, e)
		}
		if len(problems) > 0 {
			continue
		}
		if first, twice := seen[p.Key]; twice {
			errs = append(errs, &FieldError{i + 1, "name", fmt.Sprintf("%s is in document %d already: leave one", p.Key, first)})
			continue
		}
		seen[p.Key] = i + 1
		out = append(out, p)
	}
	if len(out) == 0 && len(errs) == 0 {
		errs = append(errs, &FieldError{1, "", "the file has no service: write at least name, ports and a selector"})
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return out, nil
}

// documents splits at lines of three hyphens and leaves out what is empty.
func documents(data []byte) [][]byte {
	var out [][]byte
	var doc []byte
	flush := func() {
		bare := func(l []byte) bool { l = bytes.TrimSpace(l); return len(l) == 0 || l[0] == '#' }
		if slices.ContainsFunc(bytes.Split(doc, []byte("\n")), func(l []byte) bool { return !bare(l) }) {
			out = append(out, doc)
		}
		doc = nil
	}
	for line := range bytes.Lines(data) {
		if s := bytes.TrimRight(line, " \t\r\n"); bytes.Equal(s, []byte("---")) {
			flush()
			continue
		}
		doc = append(doc, line...)
	}
	flush()
	return out
}

// reader walks one document and gathers what is wrong with it.
type reader struct{ errs []*FieldError }

func (r *reader) fail(field, format string, args ...any) {
	r.errs = append(r.errs, &FieldError{0, field, fmt.Sprintf(format, args...)})
}

func parseDocument(doc []byte) (Parsed, []*FieldError) {
	r := &reader{}
	raw, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		text := strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " ")
		r.fail("", "not YAML or JSON: %s", text)
		return Parsed{}, r.errs
	}
	p := Parsed{Allocate: true}
	d := &p.Definition
	r.object("", raw, map[string]func(string, json.RawMessage){
		"namespace": func(f string, v json.RawMessage) { r.take(f, v, &p.Key.Namespace, "a name: put it in quotes") },
		"name":      func(f string, v json.RawMessage) { r.take(f, v, &p.Key.Name, "a name: put it in quotes") },
		"labels": func(f string, v json.RawMessage) {
			r.take(f, v, &d.Labels, "a mapping of keys to values, numbers and true in quotes")
		},
		"annotations": func(f string, v json.RawMessage) {
			r.take(f, v, &d.Annotations, "a mapping of keys to values, numbers and true in quotes")
		},
		"selector": func(f string, v json.RawMessage) {
			r.take(f, v, &d.Selector, "a mapping of labels to values, numbers and true in quotes")
		},
		"ports": func(f string, v json.RawMessage) {
			r.list(f, v, func(f string, v json.RawMessage) { d.Ports = append(d.Ports, r.port(f, v)) })
		},
		"backends": func(f string, v json.RawMessage) {
			r.list(f, v, func(f string, v json.RawMessage) { d.Backends = append(d.Backends, r.backend(f, v)) })
		},
		"vips": func(f string, v json.RawMessage) {
			p.Allocate = false
			r.list(f, v, func(f string, v json.RawMessage) { d.VIPs = append(d.VIPs, r.addr(f, v)) })
		},
	})
	if len(r.errs) == 0 {
		if p.Key.Namespace == "" {
			p.Key.Namespace = "default"
		}
		r.check(p)
	}
	if len(r.errs) > 0 {
		return Parsed{}, r.errs
	}
	slices.SortFunc(d.VIPs, netip.Addr.Compare) // IPv4 first
	codec := schema.Definitions()
	_, err = codec.ParseKey(codec.FormatKey(p.Key))
	if err == nil {
		_, err = codec.Encode(p.Key, *d)
	}
	if err != nil {
		var invalid *schema.InvalidError
		if errors.As(err, &invalid) {
			r.fail("", "%s", invalid.Reason)
		} else {
			r.fail("", "%v", err)
		}
		return Parsed{}, r.errs
	}
	_, p.Warnings = ParseOptions(d.Annotations)
	return p, nil
}

// object reads a mapping and hands each member to its field.
func (r *reader) object(field string, raw json.RawMessage, fields map[string]func(string, json.RawMessage)) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil || members == nil {
		r.fail(field, "want a mapping with %s", strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		return
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		path := name
		if field != "" {
			path = field + "." + name
		}
		read, ok := fields[name]
		if !ok {
			r.fail(path, "not a field here: correct the name or remove it (known: %s)", strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
			continue
		}
		read(path, members[name])
	}
}

func (r *reader) list(field string, raw json.RawMessage, each func(string, json.RawMessage)) {
	var members []json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		r.fail(field, "want a list: write [...] or lines that begin with a hyphen")
		return
	}
	for i, m := range members {
		each(fmt.Sprintf("%s[%d]", field, i), m)
	}
}

func (r *reader) take(field string, raw json.RawMessage, into any, want string) {
	if err := json.Unmarshal(raw, into); err != nil {
		r.fail(field, "%s is not %s", brief(raw), want)
	}
}

// number reads a port.
func (r *reader) number(field string, raw json.RawMessage, into *uint16) {
	if err := json.Unmarshal(raw, into); err != nil || *into == 0 {
		r.fail(field, "%s is not a port: write a number from 1 to 65535", brief(raw))
	}
}

func (r *reader) port(field string, raw json.RawMessage) schema.ServicePort {
	p := schema.ServicePort{Protocol: schema.TCP}
	r.object(field, raw, map[string]func(string, json.RawMessage){
		"name": func(f string, v json.RawMessage) { r.take(f, v, &p.Name, "a name: put it in quotes") },
		"port": func(f string, v json.RawMessage) { r.number(f, v, &p.Port) },
		"protocol": func(f string, v json.RawMessage) {
			if err := json.Unmarshal(v, &p.Protocol); err != nil {
				r.fail(f, "%s is not known: write TCP, UDP or SCTP", brief(v))
			}
		},
		"targetPort": func(f string, v json.RawMessage) {
			if err := json.Unmarshal(v, &p.TargetName); err != nil {
				r.number(f, v, &p.TargetPort)
			} else if p.TargetName == "" || strings.Trim(p.TargetName, "0123456789") == "" {
				r.fail(f, "%s is not the name of a port: write a number without quotes, or a name with a letter", brief(v))
			}
		},
	})
	return p
}

func (r *reader) backend(field string, raw json.RawMessage) schema.Backend {
	var b schema.Backend
	r.object(field, raw, map[string]func(string, json.RawMessage){
		"address":  func(f string, v json.RawMessage) { b.Addr = r.addr(f, v) },
		"hostname": func(f string, v json.RawMessage) { r.take(f, v, &b.Hostname, "a name: put it in quotes") },
		"state": func(f string, v json.RawMessage) {
			if err := json.Unmarshal(v, &b.State); err != nil {
				r.fail(f, "%s is not a state: write ready, not-ready or terminating", brief(v))
			}
		},
		"ports": func(f string, v json.RawMessage) {
			r.take(f, v, &b.Ports, "a mapping of the service's port names to numbers from 1 to 65535")
		},
	})
	return b
}

func (r *reader) addr(field string, raw json.RawMessage) netip.Addr {
	var s string
	if err := json.Unmarshal(raw, &s); err == nil {
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast() {
			return a.Unmap()
		}
	}
	r.fail(field, "%s is not the address of a host: write one such as 10.96.0.9 or fd00::9", brief(raw))
	return netip.Addr{}
}

// check holds what concerns more than one field.
func (r *reader) check(p Parsed) {
	d := p.Definition
	if p.Key.Name == "" {
		r.fail("name", "is missing: name the service")
	} else {
		r.name("name", p.Key.Name)
	}
	r.name("namespace", p.Key.Namespace)
	if len(d.Ports) == 0 {
		r.fail("ports", "is missing: write at least one, such as [{name: http, port: 80}]")
	}
	names := make(map[string]int)
	numbers := make(map[schema.L4]int)
	for i, port := range d.Ports {
		f := fmt.Sprintf("ports[%d]", i)
		if port.Port == 0 {
			r.fail(f+".port", "is missing: write the number that clients use")
		}
		if port.Name == "" && len(d.Ports) > 1 {
			r.fail(f+".name", "is missing: every port of a service with several needs a name")
		} else if j, twice := names[port.Name]; twice {
			r.fail(f+".name", "%q is the name of ports[%d] too: choose another", port.Name, j)
		}
		l4 := schema.L4{Protocol: port.Protocol, Port: port.Port}
		if j, twice := numbers[l4]; twice && port.Port != 0 {
			r.fail(f+".port", "%d/%s is ports[%d] too: clients could not tell them apart", port.Port, port.Protocol, j)
		}
		names[port.Name], numbers[l4] = i, i
	}
	switch {
	case len(d.Selector) > 0 && len(d.Backends) > 0:
		r.fail("backends", "stand beside a selector: write one of them")
	}
	for i, b := range d.Backends {
		f := fmt.Sprintf("backends[%d]", i)
		if !b.Addr.IsValid() {
			r.fail(f+".address", "is missing: write the address that answers")
		}
		for _, name := range slices.Sorted(maps.Keys(b.Ports)) {
			if _, ok := names[name]; !ok {
				r.fail(f+".ports."+name, "the service has no port of this name: write one of its names")
			}
		}
		for _, port := range d.Ports {
			if _, ok := b.Ports[port.Name]; !ok && port.TargetName != "" {
				r.fail(f+".ports", "the port %q asks for the named port %q, which an address does not have: add %s: <number>", port.Name, port.TargetName, port.Name)
			}
		}
	}
	families := make(map[bool]int)
	for i, a := range d.VIPs {
		if j, twice := families[a.Is4()]; twice {
			r.fail(fmt.Sprintf("vips[%d]", i), "is of the same family as vips[%d]: a service has at most one of each", j)
		}
		families[a.Is4()] = i
	}
}

// maxLabel is the length of a DNS label, in bytes.
const maxLabel = 63

// name takes DNS labels alone (RFC 1123): the name is part of the store's keys and of a DNS name,
// and other implementations refuse anything else.
func (r *reader) name(field, s string) {
	alphanumeric := func(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
	good := len(s) > 0 && len(s) <= maxLabel && alphanumeric(s[0]) && alphanumeric(s[len(s)-1])
	for i := 0; good && i < len(s); i++ {
		good = alphanumeric(s[i]) || s[i] == '-'
	}
	if !good {
		quoted, _ := json.Marshal(s)
		r.fail(field, "%s is not a DNS label: use at most %d of a-z, 0-9 and '-', with '-' neither first nor last", brief(quoted), maxLabel)
	}
}

// brief shows a value in an error without its whole length.
func brief(raw json.RawMessage) string {
	const most = 40
	if s := strings.ToValidUTF8(string(raw), "?"); len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(string(raw[:most]), "?") + "..."
}
