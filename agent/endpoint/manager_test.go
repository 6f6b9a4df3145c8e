// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/weft-net/weft/agent/ipam"
	"github.com/weft-net/weft/datapath"
	"github.com/weft-net/weft/kvstore/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kernel is the outside of a Manager in memory: devices and identities, each with
// an error to give instead.
type kernel struct {
	mu         sync.Mutex
	devices    map[uint16]string // slot to name
	numbers    map[string]uint32
	references map[string]int

	failAdd, failDelete, failIdentity, failWait error
}

func newKernel() *kernel {
	return &kernel{devices: map[uint16]string{}, numbers: map[string]uint32{}, references: map[string]int{}}
}

func (k *kernel) AddEndpoint(_ context.Context, s datapath.EndpointSpec) (datapath.EndpointDevice, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failAdd != nil {
		return datapath.EndpointDevice{}, k.failAdd
	}
	k.devices[s.Slot] = s.Name
	return datapath.EndpointDevice{IfName: fmt.Sprintf("lxc%d", s.Slot), MAC: [6]byte{2, 0, 0, 0, 0, byte(s.Slot)}}, nil
}

func (k *kernel) DeleteEndpoint(_ context.Context, slot uint16) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failDelete != nil {
		return k.failDelete
	}
	delete(k.devices, slot)
	return nil
}

func (k *kernel) WaitEndpoint(context.Context, uint16) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failWait
}

func (k *kernel) Acquire(ctx context.Context, e Endpoint) (uint32, string, error) {
	k.mu.Lock()
	fail := k.failIdentity
	k.mu.Unlock()
	if fail != nil {
		<-ctx.Done()
		return 0, "", fail
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	set := labelSet(e)
	if k.numbers[set] == 0 {
		k.numbers[set] = 65536 + uint32(len(k.numbers))
	}
	k.references[set]++
	return k.numbers[set], set, nil
}

func (k *kernel) Known(e Endpoint) (uint32, string, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	set := labelSet(e)
	return k.numbers[set], set, k.numbers[set] != 0
}

func labelSet(e Endpoint) string {
	set := ""
	for _, key := range slices.Sorted(maps.Keys(e.Labels)) {
		set += key + "=" + e.Labels[key] + ";"
	}
	return set
}

func (k *kernel) Release(set string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.references[set]--; k.references[set] == 0 {
		delete(k.references, set)
	}
}

func (k *kernel) exists(device string) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for slot := range k.devices {
		if device == fmt.Sprintf("lxc%d", slot) {
			return true, nil
		}
	}
	return false, nil
}

func (k *kernel) set(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

func newManager(t *testing.T, dir string, k *kernel) *Manager {
	t.Helper()
	pools := []*ipam.Pool{
		ipam.New(ipam.Config{Prefix: netip.MustParsePrefix("10.0.0.0/29")}),
		ipam.New(ipam.Config{Prefix: netip.MustParsePrefix("fd00::/120")}),
	}
	m := New(Config{Cluster: "a", Node: "a1", Dir: dir, Limit: 10},
		NewTables(), pools, k, k, slog.New(slog.DiscardHandler))
	m.exists = k.exists
	return m
}

func spec(name string, labels ...string) Spec {
	s := Spec{Name: Name{"default", name}, NetNS: "/run/netns/" + name, Labels: map[string]string{}}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		s.Labels[k] = v
	}
	return s
}

// view is what can be seen of a Manager from outside.
func view(m *Manager, k *kernel) map[string][]string {
	v := map[string][]string{}
	for r := range m.tables.Endpoints.All() {
		v["endpoints"] = append(v["endpoints"], fmt.Sprintf("%d %v %v %s %d", r.Key, r.Value.FullName(), r.Value.Addresses, r.Value.State(), r.Value.Identity))
	}
	for r := range m.tables.Local.All() {
		v["local"] = append(v["local"], fmt.Sprintf("%d %d %s", r.Key, r.Value.Identity, r.Value.IfName))
	}
	for r := range m.tables.Published.All() {
		v["published"] = append(v["published"], fmt.Sprintf("%v %d %v", r.Key, r.Value.Identity, r.Value.State))
	}
	for r := range m.tables.Published.All() {
		for k, ip := range IPRows(netip.MustParseAddr("172.16.0.1"))(r.Key, r.Value) {
			v["ips"] = append(v["ips"], fmt.Sprintf("%v %d %v %s", k, ip.ID, ip.HostIP, ip.Workload.Metadata()))
			if !OwnsIP("a", "a1")(k, ip) || OwnsIP("a", "a")(k, ip) || OwnsIP("b", "a1")(k, ip) {
				v["ips"] = append(v["ips"], "is of the wrong node")
			}
		}
	}
	files, _ := os.ReadDir(m.disk.dir)
	for _, f := range files {
		v["files"] = append(v["files"], f.Name())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for slot, name := range k.devices {
		v["devices"] = append(v["devices"], fmt.Sprintf("%d %s", slot, name))
	}
	for set, n := range k.references {
		v["references"] = append(v["references"], fmt.Sprintf("%s %d", set, n))
	}
	for _, list := range v {
		slices.Sort(list)
	}
	return v
}

// oneEndpoint is what one endpoint "web" with label k8s:app=web looks like.
func oneEndpoint(identity int, state string) map[string][]string {
	return map[string][]string{
		"endpoints":  {fmt.Sprintf("1 default/web [10.0.0.2 fd00::2] %s %d", state, identity)},
		"local":      {fmt.Sprintf("1 %d lxc1", identity)},
		"published":  {fmt.Sprintf("a1/1 %d %s", identity, state)},
		"ips":        {fmt.Sprintf("10.0.0.2 %d 172.16.0.1 cilium-global:a:a1:1", identity), fmt.Sprintf("fd00::2 %d 172.16.0.1 cilium-global:a:a1:1", identity)},
		"files":      {"1.json"},
		"devices":    {"1 default/web"},
		"references": {"k8s:app=web; 1"},
	}
}

func TestManager_AddAndDelete(t *testing.T) {
	k := newKernel()
	m := newManager(t, t.TempDir(), k)
	if err := m.Restore(nil, nil); err != nil {
		t.Fatal(err)
	}
	first, err := m.Add(t.Context(), spec("web", "k8s:app=web"))
	if err != nil {
		t.Fatal(err)
	}
	want := oneEndpoint(65536, "ready")
	got := view(m, k)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	again, err := m.Add(t.Context(), spec("web", "k8s:app=web"))
	if err != nil || !again.Equal(first) {
		t.Errorf("second add: %v %v", again, err)
	}
	other := spec("web", "k8s:app=web")
	other.NetNS = "/run/netns/other"
	var exists *ExistsError
	if _, err := m.Add(t.Context(), other); !errors.As(err, &exists) {
		t.Errorf("got %v, want an ExistsError", err)
	}
	for _, want := range []bool{true, false} {
		if found, err := m.Delete(t.Context(), 0, Name{"default", "web"}); err != nil || found != want {
			t.Fatalf("delete: %v %v", found, err)
		}
	}
	if d := cmp.Diff(map[string][]string{}, view(m, k)); d != "" {
		t.Errorf("left behind: %s", d)
	}
}

func TestManager_FailedAddLeavesNothing(t *testing.T) {
	k := newKernel()
	k.failAdd = errors.New("name clash")
	m := newManager(t, t.TempDir(), k)
	if _, err := m.Add(t.Context(), spec("web")); err == nil || !strings.Contains(err.Error(), "name clash") {
		t.Fatalf("got %v", err)
	}
	if d := cmp.Diff(map[string][]string{}, view(m, k)); d != "" {
		t.Errorf("left behind: %s", d)
	}
	k.failAdd, k.failWait = nil, errors.New("not taken") // after the identity was
	if _, err := m.Add(t.Context(), spec("web", "k8s:app=web")); !errors.Is(err, k.failWait) {
		t.Fatalf("got %v", err)
	}
	if d := cmp.Diff(map[string][]string{}, view(m, k)); d != "" {
		t.Errorf("left behind: %s", d)
	}
	k.failWait = nil
	wanted := spec("web")
	wanted.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	var address *ipam.AddressError
	if _, err := m.Add(t.Context(), wanted); !errors.As(err, &address) {
		t.Errorf("got %v, want an AddressError", err)
	}
	if d := cmp.Diff(map[string][]string{}, view(m, k)); d != "" {
		t.Errorf("left behind: %s", d)
	}
}

func TestManager_Exhausted(t *testing.T) {
	m := newManager(t, t.TempDir(), newKernel())
	for i := range 5 {
		if _, err := m.Add(t.Context(), spec(fmt.Sprintf("web-%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	var full *ipam.ExhaustedError
	if _, err := m.Add(t.Context(), spec("web-5")); !errors.As(err, &full) || full.Used != 5 {
		t.Fatalf("got %v, want an ExhaustedError", err)
	}
	m.cfg.Limit = 5
	var many *FullError
	if _, err := m.Add(t.Context(), spec("web-5")); !errors.As(err, &many) {
		t.Fatalf("got %v, want a FullError", err)
	}
}

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

func TestManager_WaitsForIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		k.failIdentity = errors.New("store is away")
		m := newManager(t, t.TempDir(), k)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		e, err := m.Add(ctx, spec("web", "k8s:app=web"))
		if err != nil || e.State() != "waiting-for-identity" || !strings.Contains(e.Reason, "store is away") {
			t.Errorf("got %s %q %v", e.State(), e.Reason, err)
		}
		if v := view(m, k); v["published"] != nil || !slices.Equal(v["local"], []string{"1 0 lxc1"}) {
			t.Errorf("seen by others without identity: %v", v)
		}
		k.set(func() { k.failIdentity = nil })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := view(m, k)["published"]; !slices.Equal(got, []string{"a1/1 65536 ready"}) {
			t.Errorf("published %v", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestManager_KnownIdentityNeedsNoStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		k.failIdentity = errors.New("store is away")
		k.numbers["k8s:app=web;"] = 70000
		m := newManager(t, t.TempDir(), k)
		if e, err := m.Add(t.Context(), spec("web", "k8s:app=web")); err != nil || e.State() != "ready" || e.Identity != 70000 {
			t.Errorf("got %s %d %v", e.State(), e.Identity, err)
		}
		k.set(func() { k.failIdentity = nil })
		if m.work(t.Context()) {
			t.Error("work failed")
		}
		if d := cmp.Diff([]string{"k8s:app=web; 1"}, view(m, k)["references"]); d != "" {
			t.Error(d)
		}
		if err := m.Renumber(t.Context(), "k8s:app=web;", 70001); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{"a1/1 70001 ready"}, view(m, k)["published"]); d != "" {
			t.Error(d)
		}
	})
}

func TestManager_FailedDeleteIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		m := newManager(t, t.TempDir(), k)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		if _, err := m.Add(ctx, spec("web")); err != nil {
			t.Fatal(err)
		}
		k.set(func() { k.failDelete = errors.New("busy") })
		if _, err := m.Delete(ctx, 1, Name{}); err == nil {
			t.Error("delete did not fail")
		}
		if v := view(m, k); v["published"] != nil || v["local"] != nil {
			t.Errorf("still seen by others: %v", v)
		}
		k.set(func() { k.failDelete = nil })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if d := cmp.Diff(map[string][]string{}, view(m, k)); d != "" {
			t.Errorf("left behind: %s", d)
		}
		cancel()
		<-done
	})
}

func TestManager_DeviceGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		m := newManager(t, t.TempDir(), k)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		if _, err := m.Add(ctx, spec("web")); err != nil {
			t.Fatal(err)
		}
		k.set(func() { k.devices = map[uint16]string{} })
		time.Sleep(time.Minute)
		synctest.Wait()
		if d := cmp.Diff(map[string][]string{}, view(m, k)); d != "" {
			t.Errorf("left behind: %s", d)
		}
		cancel()
		<-done
	})
}

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

// One failure after the number came does not leave an endpoint waiting for ever.
func TestManager_WaitingOneIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		k.failIdentity = errors.New("store is away")
		m := newManager(t, t.TempDir(), k)
		if e, err := m.Add(t.Context(), spec("web", "k8s:app=web")); err != nil || e.Identity != 0 {
			t.Fatalf("%d %v", e.Identity, err)
		}
		k.failIdentity, k.failWait = nil, errors.New("not taken")
		if !m.work(t.Context()) {
			t.Error("work did not fail")
		}
		if v := view(m, k); v["references"] != nil || v["published"] != nil || !slices.Equal(v["local"], []string{"1 0 lxc1"}) {
			t.Errorf("after the failure: %v", v)
		}
		k.failWait = nil
		if m.work(t.Context()) {
			t.Error("work failed")
		}
		if d := cmp.Diff(oneEndpoint(65536, "ready"), view(m, k)); d != "" {
			t.Error(d)
		}
	})
}

func TestManager_ConcurrentCalls(t *testing.T) {
	k := newKernel()
	m := newManager(t, t.TempDir(), k)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			s := spec(fmt.Sprintf("web-%d", i%4), "k8s:app=web")
			if i%3 == 0 {
				_, _ = m.Delete(t.Context(), 0, s.Name)
			} else {
				_, _ = m.Add(t.Context(), s)
			}
		})
	}
	wg.Wait()
	for i := range 4 {
		if _, err := m.Delete(t.Context(), 0, spec(fmt.Sprintf("web-%d", i)).Name); err != nil {
			t.Error(err)
		}
	}
	if d := cmp.Diff(map[string][]string{}, view(m, k)); d != "" {
		t.Errorf("left behind: %s", d)
	}
}

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

func FuzzDecodeRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"id":1,"namespace":"a","name":"b","netns":"/n","interface":"eth0","addresses":["10.0.0.2"],"phase":"live"}`))
	f.Add([]byte(`{"version":1,"id":1,"addresses":["::ffff:1.2.3.4","fe80::1%eth0"],"mac":[1]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if e, err := decodeRecord(1, data); err == nil {
			_ = localRow(e)
			_ = IPRows(netip.Addr{})(schema.EndpointKey{}, endpointRow(e))
		}
	})
}
