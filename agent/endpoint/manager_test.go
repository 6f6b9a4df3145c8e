// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/weft-net/weft/agent/ipam"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
