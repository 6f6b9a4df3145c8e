// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLabels_WireForm(t *testing.T) {
	s := NewLabels(
		Label{SourceKubernetes, NamespaceKey, "default"},
		Label{SourceKubernetes, "app", "web"},
		Label{SourceAny, "foo", "a/b=c"},
		Label{SourceKubernetes, ClusterKey, "c3"},
		Label{SourceKubernetes, "empty", ""},
		Label{SourceKubernetes, ServiceAccountKey, "default"},
	)
	// Sorted by key alone: "any:foo" stands between two of source k8s.
	want := "k8s:app=web;k8s:empty=;any:foo=a/b=c;k8s:io.cilium.k8s.policy.cluster=c3;" +
		"k8s:io.cilium.k8s.policy.serviceaccount=default;k8s:io.kubernetes.pod.namespace=default;"
	if diff := cmp.Diff(want, s.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	again, err := ParseLabels(want)
	if err != nil || !again.Equal(s) {
		t.Errorf("parse: got %v, %v", again, err)
	}
	if l, ok := s.Get("foo"); !ok || l.Value != "a/b=c" || l.Source != SourceAny {
		t.Errorf("get: %v, %v", l, ok)
	}
	if !s.Has(Label{SourceAny, "app", "web"}) || s.Has(Label{SourceCNI, "app", "web"}) || s.Has(Label{SourceAny, "app", "x"}) {
		t.Error("has: wrong for app")
	}
	if round, err := LabelsOf(s.Map()); err != nil || !round.Equal(s) {
		t.Errorf("map: got %v, %v", round, err)
	}
}

func TestParseLabels_Foreign(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"k8s:app=web", "k8s:app=web;"},
		{"app=web;k8s:b", "unspec:app=web;k8s:b=;"},
		// Nothing escapes a semicolon, so the value ends there.
		{"any:foo=a/b=c;d;", "unspec:d=;any:foo=a/b=c;"},
		{"k8s:b=1;k8s:a=2;", "k8s:a=2;k8s:b=1;"},
		{"k8s:a=1;cni:a=2;", "cni:a=2;"},
		{"k8s:a=x:y=z;", "k8s:a=x:y=z;"},
		{"a=k8s:x;", "unspec:a=k8s:x;"},
	} {
		s, err := ParseLabels(c.text)
		if err != nil || s.String() != c.want {
			t.Errorf("%q: got %q, %v, want %q", c.text, s, err, c.want)
		}
	}
	for _, text := range []string{"=x;", "k8s:=x;", "k8s:a=\x00;", "k8s:a=\xff;", "a/b:c=d;"} {
		if s, err := ParseLabels(text); err == nil {
			t.Errorf("%q: got %q, want an error", text, s)
		}
	}
	if _, err := LabelsOf(map[string]string{"app": "a;b"}); err == nil {
		t.Error("a value with a semicolon has no wire form, want an error")
	}
}

func FuzzParseLabels(f *testing.F) {
	f.Add("k8s:app=web;k8s:empty=;any:foo=a/b=c;d;k8s:io.cilium.k8s.policy.cluster=c3;")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseLabels(text)
		if err != nil {
			return
		}
		again, err := ParseLabels(s.String())
		if err != nil || !again.Equal(s) || again.String() != s.String() {
			t.Fatalf("got %q, %v, want %q", again, err, s)
		}
	})
}

func TestFilter_Default(t *testing.T) {
	f := DefaultFilter()
	for label, want := range map[string]bool{
		"k8s:app=web": true,
		"k8s:io.kubernetes.pod.namespace=default":                          true,
		"k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=x": true,
		"k8s:io.cilium.k8s.policy.cluster=c3":                              true,
		"k8s:app.kubernetes.io/name=web":                                   true,
		"reserved:host":                                                    true,
		"k8s:io.kubernetes.other=x":                                        false,
		"k8s:kubernetes.io/hostname=n1":                                    false,
		"k8s:topology.kubernetes.io/zone=a":                                true,
		"k8s:node.beta.kubernetes.io/x=a":                                  false,
		"k8s:statefulset.kubernetes.io/pod-name=web-0":                     false,
		"k8s:apps.kubernetes.io/pod-index=0":                               false,
		"k8s:batch.kubernetes.io/controller-uid=1":                         false,
		"k8s:k8s.io/x=1":                                                   false,
		"k8s:pod-template-hash=1":                                          false,
		"k8s:controller-revision-hash=1":                                   false,
		"k8s:annotationx=1":                                                false,
		"cni:etcd_node=1":                                                  false,
		"k8s:my-pod-template-hash=1":                                       true,
	} {
		l, err := ParseLabel(label, SourceKubernetes)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Relevant(l); got != want {
			t.Errorf("%s: got %v, want %v", label, got, want)
		}
	}
}

func TestFilter_Custom(t *testing.T) {
	all, err := ParseLabels("k8s:app=web;k8s:app.kubernetes.io/name=x;k8s:io.kubernetes.pod.namespace=default;k8s:pod-template-hash=1;cni:team=a;k8s:tier=1;k8s:tier-internal=2;")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		rules []string
		want  string
	}{
		"includes":       {[]string{"app$"}, "k8s:app=web;k8s:app.kubernetes.io/name=x;k8s:io.kubernetes.pod.namespace=default;"},
		"source":         {[]string{"cni:team"}, "k8s:app.kubernetes.io/name=x;k8s:io.kubernetes.pod.namespace=default;cni:team=a;"},
		"other-source":   {[]string{"k8s:team"}, "k8s:app.kubernetes.io/name=x;k8s:io.kubernetes.pod.namespace=default;"},
		"ignores-add-up": {[]string{"!tier"}, "k8s:app=web;k8s:app.kubernetes.io/name=x;k8s:io.kubernetes.pod.namespace=default;cni:team=a;"},
		"longer-wins":    {[]string{"tier", "!tier-internal"}, "k8s:app.kubernetes.io/name=x;k8s:io.kubernetes.pod.namespace=default;k8s:tier=1;"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := NewFilter(c.rules...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, f.Apply(all).String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for _, bad := range []string{"", "!", "a(", "k8s:("} {
		if _, err := NewFilter(bad); err == nil {
			t.Errorf("%q: want an error", bad)
		}
	}
}

func TestForEndpoint(t *testing.T) {
	all, err := LabelsOf(map[string]string{"app": "web", "pod-template-hash": "1", "cni:team": "a"})
	if err != nil {
		t.Fatal(err)
	}
	got := ForEndpoint("c3", "default", "robot", all, DefaultFilter()).String()
	want := "k8s:app=web;k8s:io.cilium.k8s.policy.cluster=c3;k8s:io.cilium.k8s.policy.serviceaccount=robot;" +
		"k8s:io.kubernetes.pod.namespace=default;cni:team=a;"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
