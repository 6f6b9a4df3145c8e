// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/weft-net/weft/kvstore/schema"
)

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name, field string
		set         func(*Spec)
	}{
		{"good", "", func(*Spec) {}},
		{"namespace", "namespace", func(s *Spec) { s.Name.Namespace = "" }},
		{"name-with-slash", "name", func(s *Spec) { s.Name.Name = "a/b" }},
		{"relative-netns", "netns", func(s *Spec) { s.NetNS = "web" }},
		{"interface", "interface", func(s *Spec) { s.Interface = "a/b" }},
		{"long-interface", "interface", func(s *Spec) { s.Interface = strings.Repeat("e", 16) }},
		{"label-without-source", "labels", func(s *Spec) { s.Labels = map[string]string{"app": "web"} }},
		{"label-with-semicolon", "labels", func(s *Spec) { s.Labels = map[string]string{"k8s:app": "a;b"} }},
		{"long-label-of-a-short-key", "labels", func(s *Spec) { s.Labels = map[string]string{"k8s:app": strings.Repeat("a", maxLabel)} }},
		{"long-key", "labels", func(s *Spec) { s.Labels = map[string]string{"k8s:" + strings.Repeat("a", maxLabel): ""} }},
		{"reserved-label", "labels", func(s *Spec) { s.Labels = map[string]string{"reserved:host": ""} }},
		{"two-of-a-family", "addresses", func(s *Spec) {
			s.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")}
		}},
		{"port-zero", "named ports", func(s *Spec) { s.NamedPorts = []schema.NamedPort{{Name: "http"}} }},
		{"port-twice", "named ports", func(s *Spec) {
			s.NamedPorts = []schema.NamedPort{{Name: "http", Port: 1}, {Name: "http", Port: 2}}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := spec("web", "k8s:app=web")
			tt.set(&s)
			got := ""
			var e *SpecError
			if errors.As(validate(&s), &e) {
				got = e.Field
			}
			if got != tt.field {
				t.Errorf("got %q, want %q", got, tt.field)
			}
		})
	}
}
