// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weft-net/weft/kvstore/schema"
)

func TestParseFile(t *testing.T) {
	got, err := ParseFile([]byte(`# two services
---
name: web
annotations: {service.cilium.io/global: "true", service.cilium.io/affinity: lokal}
labels: {team: shop}
ports:
- {name: http, port: 80, targetPort: http}
- {name: dns, port: 53, protocol: UDP, targetPort: 5353}
selector: {app: web, "cni:zone": a}
---
{"namespace": "prod", "name": "db", "ports": [{"port": 5432}], "vips": ["fd00::9", "10.96.0.9"],
 "backends": [{"address": "10.0.0.9", "ports": {"": 15432}, "state": "terminating"}]}
---
name: headless
ports: [{port: 80}]
vips: []
`))
	if err != nil {
		t.Fatal(err)
	}
	warnings := []Problem{{"annotations[service.cilium.io/affinity]", `"lokal" is not known and taken as "none": write "none", "local" or "remote"`}}
	want := []Parsed{
		{schema.DefinitionKey{Namespace: "default", Name: "web"}, schema.Definition{
			Ports:       []schema.ServicePort{{Name: "http", Protocol: schema.TCP, Port: 80, TargetName: "http"}, {Name: "dns", Protocol: schema.UDP, Port: 53, TargetPort: 5353}},
			Selector:    map[string]string{"app": "web", "cni:zone": "a"},
			Annotations: map[string]string{AnnotationGlobal: "true", AnnotationAffinity: "lokal"},
			Labels:      map[string]string{"team": "shop"},
		}, true, warnings},
		{schema.DefinitionKey{Namespace: "prod", Name: "db"}, schema.Definition{
			Ports:    []schema.ServicePort{{Protocol: schema.TCP, Port: 5432}},
			Backends: []schema.Backend{{Addr: netip.MustParseAddr("10.0.0.9"), Ports: map[string]uint16{"": 15432}, State: schema.EndpointTerminating}},
			VIPs:     []netip.Addr{netip.MustParseAddr("10.96.0.9"), netip.MustParseAddr("fd00::9")},
		}, false, nil},
		{schema.DefinitionKey{Namespace: "default", Name: "headless"}, schema.Definition{
			Ports: []schema.ServicePort{{Protocol: schema.TCP, Port: 80}},
		}, false, nil},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

func TestParseFile_BadInput(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want []string // the beginning of each line
	}{
		"empty":           {"", []string{"document 1: the file has no service"}},
		"only-comments":   {"# hello\n---\n# more\n", []string{"document 1: the file has no service"}},
		"not-yaml":        {"name: [", []string{"document 1: not YAML or JSON"}},
		"twice-one-field": {"name: a\nname: b\n", []string{"document 1: not YAML or JSON"}},
		"a-list":          {"- name: a\n", []string{"document 1: want a mapping with"}},
		"null":            {"null", []string{"document 1: want a mapping with"}},
		"names": {"name: Bad_Name\nnamespace: -x\nports: [{port: 80}]", []string{
			`document 1: name: "Bad_Name" is not a DNS label`, `document 1: namespace: "-x" is not a DNS label`}},
		"long-name":     {"name: " + strings.Repeat("a", 64) + "\nports: [{port: 80}]", []string{"document 1: name: "}},
		"nothing-in-it": {"{}", []string{"document 1: name: is missing", "document 1: ports: is missing"}},
		"unknown-fields": {"name: a\nport: 80\nports: [{nmae: x, port: 80}]", []string{
			"document 1: port: not a field here", "document 1: ports[0].nmae: not a field here"}},
		"ports": {"name: a\nports: [{name: x, port: 0}, {name: w, port: 70000}, {name: z, port: http}, {name: u, port: 8, protocol: ICMP}, {name: t, port: 9, targetPort: 99999}, 5]", []string{
			"document 1: ports[0].port: 0 is not a port", "document 1: ports[1].port: 70000 is not a port", `document 1: ports[2].port: "http" is not a port`,
			`document 1: ports[3].protocol: "ICMP" is not known`, "document 1: ports[4].targetPort: 99999 is not a port", "document 1: ports[5]: want a mapping"}},
		"port-names":      {"name: a\nports: [{port: 80}, {port: 81}]", []string{"document 1: ports[0].name: is missing", "document 1: ports[1].name: is missing"}},
		"same-names":      {"name: a\nports: [{name: x, port: 80}, {name: x, port: 81}]", []string{`document 1: ports[1].name: "x" is the name of ports[0]`}},
		"same-numbers":    {"name: a\nports: [{name: x, port: 80}, {name: z, port: 80}]", []string{"document 1: ports[1].port: 80/TCP is ports[0] too"}},
		"quoted-target":   {"name: a\nports: [{port: 80, targetPort: \"8080\"}]", []string{`document 1: ports[0].targetPort: "8080" is not the name`}},
		"unquoted-values": {"name: a\nports: [{port: 80}]\nselector: {a: 1}\nannotations: {b: true}", []string{"document 1: annotations: {", "document 1: selector: {"}},
		"addresses": {"name: a\nports: [{port: 80}]\nvips: [10.0.0.0/24, fe80::1%eth0, \"\", 0.0.0.0, 224.0.0.1]\nbackends: [{address: web}, {}]", []string{
			`document 1: backends[0].address: "web" is not the address`, `document 1: vips[0]`, `document 1: vips[1]`, `document 1: vips[2]`, `document 1: vips[3]`, `document 1: vips[4]`}},
		"backend":            {"name: a\nports: [{port: 80, targetPort: x}]\nbackends: [{ports: {b: 1}}]", []string{"document 1: backends[0].address: is missing", "document 1: backends[0].ports.b: the service has no port", `document 1: backends[0].ports: the port "" asks`}},
		"backend-state":      {"name: a\nports: [{port: 80}]\nbackends: [{address: 10.0.0.1, state: dead}]", []string{`document 1: backends[0].state: "dead" is not a state`}},
		"selector-and":       {"name: a\nports: [{port: 80}]\nselector: {a: b}\nbackends: [{address: 10.0.0.1}]", []string{"document 1: backends: stand beside a selector"}},
		"two-of-one-family":  {"name: a\nports: [{port: 80}]\nvips: [10.96.0.1, 10.96.0.2]", []string{"document 1: vips[1]: is of the same family"}},
		"name-with-slash":    {"name: a/b\nports: [{port: 80}]", []string{"document 1: "}},
		"second-of-two":      {"name: a\nports: [{port: 80}]\n---\nname: a\nports: [{port: 81}]", []string{"document 2: name: default/a is in document 1"}},
		"long-value-clipped": {"name: a\nports: [{port: " + strings.Repeat("x", 300) + "}]", []string{"document 1: ports[0].port: \"xxx"}},
		"yaml-truth-as-name": {"name: yes\nports: [{port: 80}]", []string{"document 1: name: true is not a name: put it in quotes"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseFile([]byte(c.in))
			if err == nil {
				t.Fatal("accepted")
			}
			var field *FieldError
			if !errors.As(err, &field) {
				t.Errorf("%T is no *FieldError", err)
			}
			got := strings.Split(err.Error(), "\n")
			if len(got) != len(c.want) {
				t.Fatalf("got\n%s\nwant %d lines", err, len(c.want))
			}
			for i, line := range got {
				if !strings.HasPrefix(line, c.want[i]) || len(line) > 250 {
					t.Errorf("line %d: %q, want %q…", i, line, c.want[i])
				}
			}
		})
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte("name: web\nports: [{port: 80}]\nselector: {app: web}\n"))
	f.Add([]byte("---\n---\n{\"name\":\"a\",\"ports\":[{\"port\":1}],\"vips\":[\"::1\"]}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ps, err := ParseFile(data)
		if (err == nil) != (len(ps) > 0) {
			t.Fatalf("%d services and error %v", len(ps), err)
		}
		for _, p := range ps {
			b, err := schema.Definitions().Encode(p.Key, p.Definition)
			if err != nil {
				t.Fatalf("accepted what cannot be stored: %v", err)
			}
			d, err := schema.Definitions().Decode(p.Key, b)
			if err != nil || !d.Equal(p.Definition) {
				t.Fatalf("stored %+v, read %+v, %v", p.Definition, d, err)
			}
		}
	})
}
