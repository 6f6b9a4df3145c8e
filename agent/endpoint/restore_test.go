// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestManager_RestartKeepsEverything(t *testing.T) {
	k, dir := newKernel(), t.TempDir()
	m := newManager(t, dir, k)
	if _, err := m.Add(t.Context(), spec("web", "k8s:app=web")); err != nil {
		t.Fatal(err)
	}
	before := view(m, k)
	k.references = map[string]int{} // the process that held them is gone
	k.failIdentity = errors.New("store is away")

	m = newManager(t, dir, k)
	if err := m.Restore(nil, nil); err != nil {
		t.Fatal(err)
	}
	after := view(m, k)
	delete(before, "references")
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("restored without the store: %s", d)
	}
	if !m.tables.Local.Synced() || !m.tables.Published.Synced() {
		t.Error("not synced")
	}
	k.failIdentity = nil
	if m.work(t.Context()) {
		t.Error("work failed")
	}
	if d := cmp.Diff([]string{"k8s:app=web; 1"}, view(m, k)["references"]); d != "" {
		t.Error(d)
	}
	if e, err := m.Add(t.Context(), spec("two")); err != nil || e.ID != 2 || e.Addresses[0] != netip.MustParseAddr("10.0.0.3") {
		t.Errorf("next one: %+v %v", e, err)
	}
}

func TestManager_RestartEndsWhatWasHalfDone(t *testing.T) {
	for _, phase := range []Phase{Creating, Deleting} {
		t.Run(string(phase), func(t *testing.T) {
			k, dir := newKernel(), t.TempDir()
			m := newManager(t, dir, k)
			e, err := m.Add(t.Context(), spec("web", "k8s:app=web"))
			if err != nil {
				t.Fatal(err)
			}
			e.Phase = phase
			if err := m.disk.save(e); err != nil {
				t.Fatal(err)
			}
			k.references = map[string]int{}
			m = newManager(t, dir, k)
			if err := m.Restore(nil, nil); err != nil {
				t.Fatal(err)
			}
			if m.work(t.Context()) {
				t.Error("work failed")
			}
			if d := cmp.Diff(map[string][]string{}, view(m, k)); d != "" {
				t.Errorf("left behind: %s", d)
			}
		})
	}
}

func TestManager_UnreadableFileStopsPruning(t *testing.T) {
	k, dir := newKernel(), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "3.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := newManager(t, dir, k)
	if err := m.Restore(nil, nil); err != nil {
		t.Fatal(err)
	}
	if len(m.Broken()) != 1 || m.tables.Local.Synced() {
		t.Errorf("broken %v, synced %v", m.Broken(), m.tables.Local.Synced())
	}
	for i := range 5 {
		if e, err := m.Add(t.Context(), spec(fmt.Sprintf("web-%d", i))); err != nil || e.ID == 3 {
			t.Errorf("%v %v", e.ID, err)
		}
	}
}

func TestManager_LostDirectoryIsNotEmpty(t *testing.T) {
	k := newKernel()
	k.devices[1], k.devices[4] = "lost", "lost too"
	left := []Leftover{{ID: 1, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}, {ID: 4}}
	dir := filepath.Join(t.TempDir(), "gone")
	var m *Manager
	for start := range 2 { // the second finds the directory that the first made
		m = newManager(t, dir, k)
		if err := m.Restore(left, nil); err != nil {
			t.Fatal(err)
		}
		if len(m.Broken()) != 2 || m.tables.Local.Synced() || m.tables.Published.Synced() {
			t.Errorf("start %d: broken %v, synced %v", start, m.Broken(), m.tables.Local.Synced())
		}
	}
	if e, err := m.Add(t.Context(), spec("web")); err != nil || e.ID != 2 || e.Addresses[0] != netip.MustParseAddr("10.0.0.3") {
		t.Errorf("got %+v %v, want another slot and address", e, err)
	}

	// A record is as good as the file was; the rest somebody has to delete by its id.
	left = append(left, Leftover{ID: 2})
	m = newManager(t, dir, k)
	if err := m.Restore(left, nil); err != nil || len(m.Broken()) != 2 {
		t.Fatalf("third start: %v, broken %v", err, m.Broken())
	}
	for _, id := range []ID{1, 4} {
		if m.tables.Local.Synced() {
			t.Errorf("synced before %d is deleted", id)
		}
		if found, err := m.Delete(t.Context(), id, Name{}); !found || err != nil {
			t.Errorf("delete %d: %v %v", id, found, err)
		}
		if found, err := m.Delete(t.Context(), id, Name{}); found || err != nil {
			t.Errorf("delete %d again: %v %v", id, found, err)
		}
	}
	if d := cmp.Diff([]string{"2 default/web"}, view(m, k)["devices"]); d != "" {
		t.Error(d)
	}
	if len(m.Broken()) > 0 || !m.tables.Local.Synced() || !m.tables.Published.Synced() {
		t.Errorf("all deleted: broken %v, synced %v", m.Broken(), m.tables.Local.Synced())
	}
}

// While an endpoint is in the kernel it has a file, so that only a loss looks like one.
func TestManager_FileOutlivesTheDevice(t *testing.T) {
	k := newKernel()
	m := newManager(t, t.TempDir(), k)
	if _, err := m.Add(t.Context(), spec("web")); err != nil {
		t.Fatal(err)
	}
	k.failDelete = errors.New("busy")
	if _, err := m.Delete(t.Context(), 1, Name{}); err == nil {
		t.Fatal("delete did not fail")
	}
	m = newManager(t, m.disk.dir, k)
	if err := m.Restore([]Leftover{{ID: 1}}, nil); err != nil || len(m.Broken()) > 0 || !m.tables.Local.Synced() {
		t.Errorf("%v, broken %v", err, m.Broken())
	}
}

func TestManager_UnaskedKernelStopsPruning(t *testing.T) {
	m := newManager(t, t.TempDir(), newKernel())
	unasked := errors.New("map endpoints: permission denied")
	if err := m.Restore(nil, unasked); err != nil {
		t.Fatal(err)
	}
	if b := m.Broken(); len(b) != 1 || !errors.Is(b[0], unasked) || m.tables.Local.Synced() {
		t.Errorf("broken %v, synced %v", b, m.tables.Local.Synced())
	}
}

func TestManager_AddressTwiceOnDisk(t *testing.T) {
	k, dir := newKernel(), t.TempDir()
	m := newManager(t, dir, k)
	e, err := m.Add(t.Context(), spec("web"))
	if err != nil {
		t.Fatal(err)
	}
	e.ID, e.Name = 2, "copy"
	if err := m.disk.save(e); err != nil {
		t.Fatal(err)
	}
	m = newManager(t, dir, k)
	if err := m.Restore(nil, nil); err != nil {
		t.Fatal(err)
	}
	if len(m.Broken()) != 1 || m.tables.Local.Synced() || len(m.List()) != 1 {
		t.Errorf("broken %v, synced %v, %v", m.Broken(), m.tables.Local.Synced(), m.List())
	}
}
