// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

func declared(id uint32, host string, cidrs ...string) schema.Node {
	n := schema.Node{ClusterID: id}
	if host != "" {
		n.Addresses = []schema.NodeAddress{{Type: schema.InternalIP, IP: netip.MustParseAddr(host)}}
	}
	for _, c := range cidrs {
		n.PodCIDRs = append(n.PodCIDRs, netip.MustParsePrefix(c))
	}
	return n
}

func TestClaims_WhoGoesFirst(t *testing.T) {
	c := newClaims("own", map[string]Pin{"pinned": {ID: 9, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}}})
	c.set(schema.NodeKey{Cluster: "own", Name: "n"}, declared(5, "172.16.0.1", "10.5.0.0/24", "fd00:5::/64"))
	c.set(schema.NodeKey{Cluster: "low", Name: "n"}, declared(2, "172.16.2.1", "10.2.0.0/24", "10.9.7.0/24"))
	c.set(schema.NodeKey{Cluster: "high", Name: "n"}, declared(8, "172.16.8.1", "10.8.0.0/24", "10.2.0.0/24"))
	for _, s := range []struct {
		cluster string
		id      uint32
		prefix  string
		owner   string // empty: may be claimed
	}{
		{"low", 2, "10.5.0.7/32", "own"},
		{"low", 2, "172.16.0.1/32", "own"},
		{"low", 2, "10.0.0.0/8", "own"}, // holds something of ours
		{"low", 2, "0.0.0.0/0", "own"},
		{"low", 2, "::/0", "own"},
		{"low", 2, "fd00:5::1/128", "own"},
		{"low", 2, "fd00:6::1/128", ""},
		{"low", 2, "10.2.0.7/32", ""},     // the lower id of two that declare it
		{"high", 8, "10.2.0.7/32", "low"}, // the higher
		{"high", 8, "10.2.0.128/25", "low"},
		{"low", 2, "10.8.0.7/32", ""}, // it would go first; whether it may is a matter of what it declares
		{"low", 2, "10.9.7.7/32", "pinned"},
		{"high", 8, "10.9.0.1/32", "pinned"},
		{"pinned", 9, "10.9.7.7/32", ""},
		{"pinned", 9, "10.2.0.7/32", "low"}, // a pin is for what was pinned
		{"own", 5, "10.2.0.7/32", ""},
		{"new", 7, "10.77.0.1/32", ""},
		{"new", 1, "172.16.2.1/32", ""},
		{"new", 7, "172.16.2.1/32", "low"},
	} {
		owner, by, found := c.conflict(s.cluster, s.id, netip.MustParsePrefix(s.prefix))
		if owner != s.owner || found != (s.owner != "") {
			t.Errorf("%s claims %s: goes to %q by %s (%t), want %q", s.cluster, s.prefix, owner, by, found, s.owner)
		}
	}
	for prefix, want := range map[string]bool{"10.2.0.9/32": true, "10.2.0.0/25": true, "172.16.2.1/32": true, "10.2.0.0/16": false, "10.5.0.1/32": false, "fd00:2::1/128": false} {
		if got := c.covers("low", netip.MustParsePrefix(prefix)); got != want {
			t.Errorf("low declares %s: %t", prefix, got)
		}
	}
	if !c.covers("nobody", netip.MustParsePrefix("1.2.3.4/32")) {
		t.Error("a cluster that declares nothing may have any")
	}
	if c.covers("pinned", netip.MustParsePrefix("10.10.0.0/24")) {
		t.Error("a pinned cluster is held to its pin")
	}
}

// TestClaims_AgainstModel compares conflict and covers with the plain reading of the rule, while
// nodes come, change and go.
func TestClaims_AgainstModel(t *testing.T) {
	for seed := range 30 {
		r := rand.New(rand.NewPCG(uint64(seed), 3))
		ids := map[string]uint32{"a": 1, "b": 2, "c": 3, "d": 3}
		names := []string{"a", "b", "c", "d"}
		pins := map[string]Pin{"c": {ID: 3, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.128/25")}}}
		c := newClaims("b", pins)
		type declaration struct {
			cluster string
			prefix  netip.Prefix
			pod     bool
		}
		world := map[schema.NodeKey]schema.Node{}
		prefix := func() netip.Prefix {
			p, _ := netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(256))}).Prefix(24 + r.IntN(9))
			return p
		}
		class := func(cluster string, p netip.Prefix) int {
			if cluster == "b" {
				return 0
			}
			if cluster == "c" && p.Bits() >= 25 && pins["c"].PodCIDRs[0].Contains(p.Addr()) {
				return 1
			}
			return 2
		}
		for range 200 {
			k := schema.NodeKey{Cluster: names[r.IntN(4)], Name: fmt.Sprint(r.IntN(2))}
			if r.IntN(3) == 0 {
				_, had := world[k]
				if c.remove(k) != had {
					t.Fatal("remove")
				}
				delete(world, k)
			} else {
				n := schema.Node{ClusterID: ids[k.Cluster]}
				for range r.IntN(3) {
					n.PodCIDRs = append(n.PodCIDRs, prefix())
				}
				n.Addresses = append(n.Addresses, schema.NodeAddress{IP: prefix().Addr()})
				world[k] = n
				c.set(k, n)
				if c.set(k, n) {
					t.Fatal("the same again is no change")
				}
			}
			all := []declaration{{"c", pins["c"].PodCIDRs[0], true}}
			for k, n := range world {
				for _, p := range n.PodCIDRs {
					all = append(all, declaration{k.Cluster, p, true})
				}
				for _, a := range n.Addresses {
					all = append(all, declaration{k.Cluster, netip.PrefixFrom(a.IP, 32), false})
				}
			}
			who, p := names[r.IntN(4)], prefix()
			me := rank{class(who, p), ids[who], who}
			lost, covered, declares := false, false, false
			if who == "b" {
				me = rank{}
			}
			for _, d := range all {
				if d.cluster == who {
					declares = declares || d.pod
					covered = covered || d.prefix.Bits() <= p.Bits() && d.prefix.Contains(p.Addr())
					continue
				}
				other := rank{class(d.cluster, d.prefix), ids[d.cluster], d.cluster}
				if d.cluster == "b" {
					other = rank{}
				}
				lost = lost || d.prefix.Overlaps(p) && other.compare(me) < 0
			}
			if _, _, got := c.conflict(who, ids[who], p); got != lost {
				t.Fatalf("seed %d: %s claims %s: conflict %t, want %t", seed, who, p, got, lost)
			}
			if got := c.covers(who, p); got != (covered || !declares) {
				t.Fatalf("seed %d: %s covers %s: %t", seed, who, p, got)
			}
		}
		for k := range world {
			c.remove(k)
		}
		c.remove(schema.NodeKey{Cluster: "c"})
		if len(c.byPrefix)+len(c.declares)+len(c.nodes) != 0 || c.lengths != [2][129]int{} {
			t.Fatalf("something is left: %+v", c)
		}
	}
}

// ours puts a node of our own cluster into the table, as the agent does.
func (b *bench) ours(name, host string, cidrs ...string) {
	n := declared(1, host, cidrs...)
	n.Name, n.Cluster = name, "own"
	b.tables.Nodes.Put("etcd", 1, schema.NodeKey{Cluster: "own", Name: name}, n)
}

// TestMesh_SpeaksForItself: nothing that a remote writes touches what is ours or another's.
func TestMesh_SpeaksForItself(t *testing.T) {
	low, high := newCluster(t, "low", 2), newCluster(t, "high", 3)
	low.fill(2)
	high.fill(3)
	b := newBench(t, nil)
	b.ours("me", "172.16.1.1", "10.1.0.0/24")
	b.add("low", low.ClientConfig())
	b.add("high", high.ClientConfig())
	b.wantRows("low", one)
	b.wantRows("high", one)
	hs := high.scope()
	hid := uint32(3<<16 + 5)

	// A node of ours or with our address; a pod CIDR that holds ours.
	k := high.node(hs, "n2", "172.16.1.1", "10.3.1.0/24")
	b.fault("high", schema.ResourceNodes, "address 172.16.1.1 of the node belongs to cluster own")
	high.del(k)
	high.node(hs, "n3", "172.16.3.3", "10.0.0.0/8", "10.3.1.0/24")
	b.fault("high", schema.ResourceNodes, "pod CIDR 10.0.0.0/8 overlaps 10.1.0.0/24 of cluster own and is left out")
	kvstoretest.Eventually(t, func() string {
		row, ok := b.tables.Nodes.Get(schema.NodeKey{Cluster: "high", Name: "n3"})
		if !ok || len(row.Value.PodCIDRs) != 1 || row.Value.PodCIDRs[0].String() != "10.3.1.0/24" {
			return fmt.Sprintf("node %+v", row.Value)
		}
		return ""
	})
	// Addresses: ours, our node's, the other remote's; and a host of ours.
	for prefix, owner := range map[string]string{"10.1.0.9/32": "own", "172.16.1.1/32": "own", "10.2.0.9/32": "low", "10.1.0.0/25": "own"} {
		high.ip(hs, prefix, "172.16.3.1", hid)
		b.fault("high", schema.ResourceIPs, "belongs to cluster "+owner)
	}
	high.ip(hs, "10.3.0.77/32", "172.16.1.1", hid)
	b.fault("high", schema.ResourceIPs, "host 172.16.1.1 belongs to cluster own")
	b.always("no row of it", func() bool { return b.rows("high") == [4]int{2, 1, 1, 1} })
	// A backend that is ours is left out of its service, the others stay.
	high.service(hs, "web", "10.1.0.9", "10.3.0.5", "203.0.113.9")
	b.fault("high", schema.ResourceServices, "backend 10.1.0.9 belongs to cluster own")
	kvstoretest.Eventually(t, func() string {
		row, _ := b.tables.Services.Get(schema.ServiceKey{Cluster: "high", Namespace: "default", Name: "web"})
		if len(row.Value.Backends) != 2 {
			return fmt.Sprintf("backends %v", row.Value.Backends)
		}
		return ""
	})
}

// TestMesh_OverlapComesAndGoes: the verdict does not depend on who declared first, and what lost
// comes back when the winner goes.
func TestMesh_OverlapComesAndGoes(t *testing.T) {
	low, high := newCluster(t, "low", 2), newCluster(t, "high", 3)
	high.fill(3)
	b := newBench(t, nil)
	b.add("high", high.ClientConfig())
	b.wantRows("high", one)
	// The lower id declares the same afterwards.
	low.fill(2)
	key := low.node(low.scope(), "n2", "172.16.2.2", "10.3.0.0/24")
	b.add("low", low.ClientConfig())
	b.wantRows("high", [4]int{1, 0, 1, 1})
	b.fault("high", schema.ResourceIPs, "belongs to cluster low")
	b.fault("high", schema.ResourceServices, "belongs to cluster low")
	kvstoretest.Eventually(t, func() string {
		row, _ := b.tables.Nodes.Get(schema.NodeKey{Cluster: "high", Name: "n1"})
		if len(row.Value.PodCIDRs) != 0 {
			return fmt.Sprintf("pod CIDRs %v", row.Value.PodCIDRs)
		}
		return ""
	})
	low.del(key)
	b.wantRows("high", one)
	kvstoretest.Eventually(t, func() string {
		node, _ := b.tables.Nodes.Get(schema.NodeKey{Cluster: "high", Name: "n1"})
		service, _ := b.tables.Services.Get(schema.ServiceKey{Cluster: "high", Namespace: "default", Name: "web"})
		if len(node.Value.PodCIDRs) != 1 || len(service.Value.Backends) != 1 {
			return fmt.Sprintf("node %+v, service %+v", node.Value, service.Value)
		}
		for _, r := range b.remote("high").Resources {
			if r.Faults > 0 {
				return "faults are left: " + r.LastReason
			}
		}
		return ""
	})
	// Ours goes before all.
	b.ours("me", "172.16.1.1", "10.3.0.0/24")
	b.wantRows("high", [4]int{1, 0, 1, 1})
	b.tables.Nodes.Delete("etcd", 2, schema.NodeKey{Cluster: "own", Name: "me"})
	b.wantRows("high", one)
}

// TestMesh_NodeAfterItsAddress: the watches of nodes and addresses are apart, so an address may be
// seen before the node that declares it.
func TestMesh_NodeAfterItsAddress(t *testing.T) {
	b, c := newMirrored(t)
	c.ip(c.scope(), "10.2.1.5/32", "172.16.2.2", 2<<16+5)
	b.fault("far", schema.ResourceIPs, "outside the pod CIDRs")
	key := c.node(c.scope(), "n2", "172.16.2.2", "10.2.1.0/24")
	b.wantRows("far", [4]int{2, 2, 1, 1})
	// A node that goes takes no address with it that was taken before.
	c.del(key)
	b.wantRows("far", [4]int{1, 2, 1, 1})
	b.always("the address stays", func() bool { return b.rows("far") == [4]int{1, 2, 1, 1} })
}
