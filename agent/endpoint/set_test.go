// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/kvstore/schema"
)

func TestManager_Set(t *testing.T) {
	k := newKernel()
	m := newManager(t, t.TempDir(), k)
	if _, err := m.Add(t.Context(), spec("web", "k8s:app=web")); err != nil {
		t.Fatal(err)
	}
	state := schema.EndpointTerminating
	e, err := m.Set(t.Context(), 1, Name{}, Change{Labels: map[string]string{"k8s:app": "db"}, Readiness: &state})
	if err != nil || e.Identity != 65537 || e.State() != "terminating" {
		t.Fatalf("%+v %v", e, err)
	}
	v := view(m, k)
	if d := cmp.Diff([]string{"a1/1 65537 terminating"}, v["published"]); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"k8s:app=db; 1"}, v["references"]); d != "" {
		t.Error(d)
	}
	var missing *NotFoundError
	if _, err := m.Set(t.Context(), 7, Name{}, Change{}); !errors.As(err, &missing) {
		t.Errorf("got %v, want a NotFoundError", err)
	}
}

// A Set that fails changes nothing, wherever it fails.
func TestManager_FailedSetChangesNothing(t *testing.T) {
	for _, tt := range []struct {
		name        string
		spoil, mend func(*Manager, *kernel)
	}{
		{
			"program",
			func(_ *Manager, k *kernel) { k.failWait = errors.New("not taken") },
			func(_ *Manager, k *kernel) { k.failWait = nil },
		},
		{
			"put",
			func(m *Manager, _ *kernel) { m.disk.dir += "/gone" },
			func(m *Manager, _ *kernel) { m.disk.dir = filepath.Dir(m.disk.dir) },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newKernel()
			m := newManager(t, t.TempDir(), k)
			if _, err := m.Add(t.Context(), spec("web", "k8s:app=web")); err != nil {
				t.Fatal(err)
			}
			change := Change{Labels: map[string]string{"k8s:app": "db"}}
			tt.spoil(m, k)
			if _, err := m.Set(t.Context(), 1, Name{}, change); err == nil {
				t.Error("set did not fail")
			}
			tt.mend(m, k)
			if d := cmp.Diff(oneEndpoint(65536, "ready"), view(m, k)); d != "" {
				t.Error(d)
			}
			if e, _ := m.find(1, Name{}); e.Labels["k8s:app"] != "web" {
				t.Errorf("labels %v", e.Labels)
			}
			if _, err := m.Set(t.Context(), 1, Name{}, change); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff([]string{"k8s:app=db; 1"}, view(m, k)["references"]); d != "" {
				t.Error(d)
			}
		})
	}
}
