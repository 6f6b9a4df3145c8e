// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/netns"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
	"github.com/weft-net/weft/state"
)

// testBPFRoot mounts a BPF file system that is gone after the test, with everything pinned in it.
func testBPFRoot(t *testing.T) string {
	t.Helper()
	netns.RequireRoot(t)
	dir := filepath.Join(t.TempDir(), "bpf")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// testTables are empty tables of one node.
func testTables() Tables {
	return Tables{
		Endpoints: state.NewTable[uint16]("endpoints", state.Equal[LocalEndpoint]),
		IPs:       state.NewTable[schema.IPKey]("ips", state.Equal[schema.IP]),
		Nodes:     state.NewTable[schema.NodeKey]("nodes", schema.Node.Equal),
		Clusters:  state.NewTable[string]("clusters", func(a, b Cluster) bool { return false }),
		Frontends: state.NewTable[service.Frontend]("frontends", service.Service.Equal),
	}
}

// markSynced says that a test has written all it will write before it looks.
func markSynced(t Tables) {
	t.Endpoints.MarkSynced("test")
	t.IPs.MarkSynced("test")
	t.Nodes.MarkSynced("test")
	t.Clusters.MarkSynced("test")
	t.Frontends.MarkSynced("test")
}

// testNode is a node with its datapath.
type testNode struct {
	t      *testing.T
	name   string
	ns     *netns.NS
	cfg    Config
	tables Tables
	reg    prometheus.Registerer // nil: none

	d    *Datapath
	stop func() // stops Run and waits for it
}

// testConfig is small enough that many nodes fit on the machine.
func testConfig(name string) Config {
	cfg := DefaultConfig()
	cfg.Cluster, cfg.ClusterID, cfg.NodeName = "one", 1, name
	cfg.IPv4, cfg.IPv6 = true, true
	cfg.MaxFlows, cfg.MaxYoungFlows, cfg.MaxIPCache, cfg.MaxPrefixes = 4096, 1024, 4096, 1024
	cfg.MaxEndpoints, cfg.MaxNodes, cfg.MaxFrontends, cfg.MaxBackends, cfg.MaxFragments = 256, 64, 256, 1024, 128
	cfg.EventBytes, cfg.MaxSockets = 1<<16, 1024
	cfg.RefreshInterval = time.Second
	return cfg
}

// start runs the datapath until stop is called or the test ends, and waits until it is ready.
func (n *testNode) start() {
	n.t.Helper()
	d, err := New(n.cfg, n.tables, slog.New(slog.NewTextHandler(testWriter{n.t}, nil)), n.reg)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	n.d = d
	n.stop = func() {
		cancel()
		if ended == nil {
			return
		}
		if err := <-ended; err != nil {
			n.t.Errorf("run %s: %v", n.name, err)
		}
		ended = nil
	}
	n.t.Cleanup(func() { n.stop() })
	select {
	case <-d.Ready():
	case err := <-ended:
		ended = nil
		n.t.Fatalf("run %s: %v", n.name, err)
	case <-time.After(testPatience):
		n.t.Fatalf("run %s: not ready", n.name)
	}
}

// restart stops the datapath and starts a new one over the same tables.
func (n *testNode) restart() {
	n.t.Helper()
	n.stop()
	n.start()
}

// testWriter writes log lines into the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// testEndpoint is an endpoint with its namespace.
type testEndpoint struct {
	LocalEndpoint
	ns *netns.NS
}

// addEndpoint makes a namespace with an endpoint in it and waits until it is in the kernel.
func (n *testNode) addEndpoint(slot uint16, v4, v6 string, identity uint32) testEndpoint {
	n.t.Helper()
	ns := testNS(n.t, fmt.Sprintf("%s-e%d", n.name, slot))
	return n.addEndpointIn(ns, slot, v4, v6, identity)
}

func (n *testNode) addEndpointIn(ns *netns.NS, slot uint16, v4, v6 string, identity uint32) testEndpoint {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), testPatience)
	defer cancel()
	spec := EndpointSpec{Slot: slot, Name: ns.Name(), NetNSPath: ns.Path()}
	if v4 != "" {
		spec.IPv4 = netip.MustParseAddr(v4)
	}
	if v6 != "" {
		spec.IPv6 = netip.MustParseAddr(v6)
	}
	dev, err := n.d.AddEndpoint(ctx, spec)
	if err != nil {
		n.t.Fatal(err)
	}
	ep := LocalEndpoint{
		ID: slot, Slot: slot, Name: spec.Name, NetNSPath: spec.NetNSPath,
		IfName: dev.IfName, IPv4: spec.IPv4, IPv6: spec.IPv6, MAC: dev.MAC, Identity: identity,
	}
	n.tables.Endpoints.Put("test", 0, slot, ep)
	if err := n.d.WaitEndpoint(ctx, slot); err != nil {
		n.t.Fatal(err)
	}
	return testEndpoint{ep, ns}
}

// deleteEndpoint does what the agent does.
func (n *testNode) deleteEndpoint(ep testEndpoint) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), testPatience)
	defer cancel()
	n.tables.Endpoints.Delete("test", 0, ep.Slot)
	if err := n.d.DeleteEndpoint(ctx, ep.Slot); err != nil {
		n.t.Fatal(err)
	}
}

// knows puts rows for another node and its endpoints into the tables, as its agent would.
func (n *testNode) knows(other *testNode, eps ...testEndpoint) {
	var addrs []schema.NodeAddress
	for _, a := range other.cfg.NodeIPs {
		addrs = append(addrs, schema.NodeAddress{Type: schema.InternalIP, IP: a})
	}
	for _, a := range other.cfg.InsideIPs {
		addrs = append(addrs, schema.NodeAddress{Type: schema.CiliumInternalIP, IP: a})
	}
	key := schema.NodeKey{Cluster: other.cfg.Cluster, Name: other.name}
	n.tables.Nodes.Put("test", 0, key, schema.Node{
		Name: other.name, Cluster: other.cfg.Cluster, ClusterID: other.cfg.ClusterID,
		Addresses: addrs, PodCIDRs: other.cfg.PodCIDRs,
	})
	for _, ep := range eps {
		for _, a := range []netip.Addr{ep.IPv4, ep.IPv6} {
			if a.IsValid() {
				n.tables.IPs.Put("test", 0, schema.IPKey{Cluster: other.cfg.Cluster, Prefix: hostPrefix(a)},
					schema.IP{HostIP: other.cfg.NodeIPs[0], ID: ep.Identity})
			}
		}
	}
}
