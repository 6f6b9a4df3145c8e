// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weft-net/weft/internal/netns"
)

func TestMain(m *testing.M) {
	if child, ok := children()[os.Getenv(childRole)]; ok {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

func TestOptions_Validate(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Options)
		want   string // part of the error; empty: none
	}{
		{"default", func(*Options) {}, ""},
		{"name-too-long", func(o *Options) { o.Name = "abcdefghijklmnop" }, "name"},
		{"name-with-path", func(o *Options) { o.Name = "../x" }, "name"},
		{"no-cluster", func(o *Options) { o.Clusters = 0 }, "clusters 0: want 1 to 8"},
		{"too-many-nodes", func(o *Options) { o.Nodes = 51 }, "nodes 51"},
		{"mode", func(o *Options) { o.Mode = "geneve" }, `mode "geneve": want vxlan or native`},
		{"family", func(o *Options) { o.Family = "46" }, `family "46"`},
		{"wan-mtu", func(o *Options) { o.WANMTU = 9000 }, "wan-mtu 9000"},
		{"no-api-server", func(o *Options) { o.APIServers = 0 }, ""},
		{"unjoined-without-api-servers", func(o *Options) { o.Unjoined = true }, "want apiservers"},
		{"too-many-api-servers", func(o *Options) { o.APIServers = 5 }, "apiservers 5: want 0 to 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := DefaultOptions()
			c.change(&o)
			err := o.Validate()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestPlan_AddressesAreApart(t *testing.T) {
	o := DefaultOptions()
	o.Clusters, o.Nodes, o.APIServers, o.Family = maxClusters, maxNodes, maxServers, Dual
	l := plan(o)
	var ranges []netip.Prefix
	seen := map[netip.Addr]string{}
	for _, c := range l.Clusters {
		a := addressing{Dual, int(c.ID)}
		seen[a.control(hostEtcd)], seen[a.control(hostOp)] = "etcd", "operator"
		for i := range c.APIServers {
			addr := l.serverAddr(&c, i).Addr()
			if other, ok := seen[addr]; ok {
				t.Errorf("%s has the address %s of %s", serverProcess(&c, i), addr, other)
			}
			seen[addr] = serverProcess(&c, i)
		}
		for _, n := range c.Nodes {
			ranges = append(ranges, n.PodCIDRs...)
			for _, a := range append(n.Addresses, n.Control) {
				if other, ok := seen[a]; ok {
					t.Errorf("%s has the address %s of %s", n.Name, a, other)
				}
				seen[a] = n.Name
			}
		}
		ranges = append(ranges, c.ServiceCIDRs...)
	}
	for i, r := range ranges {
		for _, q := range ranges[:i] {
			if r.Overlaps(q) && r != q { // services are the same ranges in every cluster
				t.Errorf("%s overlaps %s", r, q)
			}
		}
		for a, who := range seen {
			if r.Contains(a) {
				t.Errorf("%s of %s is inside %s", a, who, r)
			}
		}
	}
}

func TestState_SurvivesItsFile(t *testing.T) {
	o := DefaultOptions()
	o.Dir, o.Family = t.TempDir(), Dual
	want := plan(o)
	if err := errors.Join(claim(o.Name, o.Dir), want.save()); err != nil {
		t.Fatal(err)
	}
	got, err := Open(o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(want)
	b, _ := json.Marshal(got)
	if !bytes.Equal(a, b) {
		t.Errorf("got %s\nwant %s", b, a)
	}
	if _, err := Open(filepath.Join(o.Dir, "none")); !errors.Is(err, ErrNotUp) {
		t.Errorf("a directory without a lab: %v, want ErrNotUp", err)
	}
}

func TestDown_LeavesTheDirectoriesOfOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Down(t.Context(), "tdir", dir); err == nil {
		t.Error("down of a directory that is no lab's: no error")
	}
	if err := claim("tdir", dir); err == nil {
		t.Error("a lab in a directory with files of others: no error")
	}
	if _, err := os.Stat(filepath.Join(dir, "precious")); err != nil {
		t.Error(err)
	}
	mine := filepath.Join(dir, "lab")
	if err := claim("tdir", mine); err != nil {
		t.Fatal(err)
	}
	if err := Down(t.Context(), "tother", mine); err == nil {
		t.Error("down of another lab's directory: no error")
	}
	if err := Down(t.Context(), "tdir", mine); err != nil {
		t.Error(err)
	}
}

// testLab is a lab's network without any process.
func testLab(t *testing.T, name string, mode Mode, family Family) *Lab {
	netns.RequireRoot(t)
	o := DefaultOptions()
	o.Name, o.Mode, o.Family, o.Dir, o.Weft = name, mode, family, t.TempDir(), "/bin/sleep"
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	l := plan(o)
	if err := claim(name, o.Dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Down(context.Background(), name, o.Dir); err != nil {
			t.Error(err)
		}
		if left, err := netnsOf(name); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	})
	if err := l.buildNetwork(); err != nil {
		t.Fatal(err)
	}
	return l
}

// reach connects by TCP from one namespace to an address of another.
func reach(t *testing.T, from, to string, addr netip.Addr, patience time.Duration) error {
	t.Helper()
	server, err := netns.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	var ln net.Listener
	if err := server.Do(func() (err error) {
		ln, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := netns.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	return client.Do(func() error {
		c, err := net.DialTimeout("tcp", ln.Addr().String(), patience)
		if err == nil {
			c.Close()
		}
		return err
	})
}

func TestNetwork_LinksAreCutAlone(t *testing.T) {
	for _, family := range []Family{Only4, Dual, Only6} {
		t.Run(string(family), func(t *testing.T) {
			l := testLab(t, "tnet"+string(family), Native, family)
			east, west := l.Clusters[0].Nodes[0], l.Clusters[1]
			data := func(d time.Duration) error {
				var errs []error
				for _, a := range west.Nodes[1].Addresses {
					errs = append(errs, reach(t, east.Agent.Netns, west.Nodes[1].Agent.Netns, a, d))
				}
				return errors.Join(errs...)
			}
			control := func(d time.Duration) error {
				return reach(t, east.Agent.Netns, west.Etcd.Netns, addressing{family, 2}.control(hostEtcd), d)
			}
			own := func(d time.Duration) error {
				return reach(t, west.Nodes[0].Agent.Netns, west.Etcd.Netns, addressing{family, 2}.control(hostEtcd), d)
			}
			check := func(when string, wantData, wantControl, wantOwn bool) {
				t.Helper()
				for what, c := range map[string]struct {
					do   func(time.Duration) error
					want bool
				}{"data": {data, wantData}, "control": {control, wantControl}, "own store": {own, wantOwn}} {
					patience := 5 * time.Second
					if !c.want {
						// What is cut never answers; waiting longer shows no more.
						patience = 200 * time.Millisecond
					}
					if err := c.do(patience); (err == nil) != c.want {
						t.Errorf("%s: %s: %v, want it to work: %v", when, what, err, c.want)
					}
				}
			}
			check("at first", true, true, true)
			for _, cut := range []struct {
				name               string
				data, control, own bool
			}{
				{"control/west", true, false, true},
				{"data/west", false, true, true},
				{"etcd/west", true, false, false},
				{"node/west-2", false, true, true},
				{"store/west-1", true, true, false},
			} {
				if err := l.Cut(cut.name); err != nil {
					t.Fatal(err)
				}
				check("without "+cut.name, cut.data, cut.control, cut.own)
				if err := l.Heal(cut.name); err != nil {
					t.Fatal(err)
				}
				check("with "+cut.name+" again", true, true, true)
			}
			for _, bad := range []string{"data", "data/none", "wire/west", ""} {
				if err := l.Cut(bad); err == nil {
					t.Errorf("cut %q: no error", bad)
				}
			}
		})
	}
}

func TestProcesses_AreFoundAndEnded(t *testing.T) {
	l := testLab(t, "tproc", VXLAN, Only4)
	p := &l.Clusters[0].Nodes[0].Agent
	p.Log = filepath.Join(l.Dir, "log")
	if err := l.start(p, "600"); err != nil {
		t.Fatal(err)
	}
	if !p.alive() {
		t.Fatal("not alive after its start")
	}
	other := Process{PID: p.PID, Start: p.Start + 1}
	if other.alive() {
		t.Error("another process of the same number counts as alive")
	}
	pids, err := processesOf("tproc")
	if err != nil || len(pids) != 1 || pids[0] != p.PID {
		t.Errorf("found %v, %v; want %d", pids, err, p.PID)
	}
	if pids, _ := processesOf("tpro"); len(pids) != 0 {
		t.Errorf("a lab whose name is a part of this one's has %v", pids)
	}
	was := *p
	if err := Down(t.Context(), "tproc", l.Dir); err != nil {
		t.Fatal(err)
	}
	if was.alive() {
		t.Error("alive after down")
	}
	if _, err := os.Stat(l.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestLoad_AgainstAWorkload(t *testing.T) {
	netns.RequireRoot(t)
	l := testLab(t, "tload", VXLAN, Only4)
	ns, err := netns.Open(l.Clusters[0].Nodes[0].Agent.Netns)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		done <- ns.Do(func() error {
			return who{Name: "w", Cluster: "east", Node: "n"}.serve(ctx, func() error { close(ready); return nil })
		})
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	var c Connect
	ns.Do(func() error { //nolint:errcheck // the function returns none
		c = Load{Target: "127.0.0.1:13", Timeout: 5 * time.Second}.once()
		return nil
	})
	if c.Error != "" || c.Name != "w" || c.Cluster != "east" {
		t.Errorf("got %+v", c)
	}
	ns.Do(func() error { //nolint:errcheck // the function returns none
		c = Load{Target: "127.0.0.1:14", Timeout: 5 * time.Second}.once()
		return nil
	})
	if c.Error == "" {
		t.Error("a port where nobody listens answers")
	}
}
