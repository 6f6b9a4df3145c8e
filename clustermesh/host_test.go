// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

func TestClaims_Host(t *testing.T) {
	c := newClaims("own", map[string]Pin{"far": {ID: 2, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}})
	for name, n := range map[string]schema.Node{
		"a":      declared(2, "172.16.0.1", "10.0.1.0/24", "fd00:1::/64"),
		"b":      declared(2, "172.16.0.2", "10.0.2.0/24"),
		"multi":  declared(2, "172.16.0.3"),                 // declares no CIDR
		"silent": declared(2, "", "10.0.4.0/24"),            // nor an address
		"old":    declared(2, "172.16.0.5", "10.0.5.0/24"),  // replaced, its lease not over
		"new":    declared(2, "172.16.0.6", "10.0.5.0/24"),  // has its CIDR now
		"wide":   declared(2, "172.16.0.7", "10.0.64.0/18"), // has pods of another inside
		"narrow": declared(2, "172.16.0.8", "10.0.65.0/24"),
	} {
		c.set(schema.NodeKey{Cluster: "far", Name: name}, n)
	}
	c.set(schema.NodeKey{Cluster: "own", Name: "x"}, declared(1, "172.17.0.1", "10.99.0.0/24"))
	for _, s := range []struct {
		prefix, host string
		id           uint32
		reason       string
	}{
		{"10.0.1.7/32", "172.16.0.1", 1000, ""},
		{"fd00:1::7/128", "172.16.0.1", 1000, ""},
		{"10.0.1.7/32", "172.16.0.2", 1000, "on host 172.16.0.2, and 10.0.1.0/24 is node a's"},
		{"fd00:1::7/128", "172.16.0.2", 1000, "on host 172.16.0.2, and fd00:1::/64 is node a's"},
		{"10.0.1.0/25", "172.16.0.2", 1000, "on host 172.16.0.2, and 10.0.1.0/24 is node a's"},
		{"10.0.1.7/32", "172.16.0.3", 1000, "on host 172.16.0.3, and 10.0.1.0/24 is node a's"},
		{"10.0.1.7/32", "192.0.2.1", 1000, "on host 192.0.2.1, and 10.0.1.0/24 is node a's"},
		{"10.0.1.7/32", "172.17.0.1", 1000, "on host 172.17.0.1, and 10.0.1.0/24 is node a's"},
		// Without a host a row may say no more than is believed anyway.
		{"10.0.1.7/32", "", 1000, "names no host, and 10.0.1.0/24 is node a's"},
		{"10.0.1.0/24", "", identityUnmanaged, ""},
		{"10.0.1.7/32", "", identityWorld, ""},
		{"10.0.1.7/32", "", identityHost, "names no host, and 10.0.1.0/24 is node a's"},
		// Nodes have addresses too.
		{"172.16.0.1/32", "172.16.0.1", identityHost, ""},
		{"172.16.0.1/32", "172.16.0.2", 1000, "on host 172.16.0.2, and 172.16.0.1/32 is node a's"},
		// Not declared by a node of this cluster: not judged here.
		{"10.0.3.7/32", "172.16.0.3", 1000, ""},
		{"10.99.0.7/32", "172.16.0.3", 1000, ""},
		{"10.0.4.7/32", "172.16.0.1", 1000, ""},
		// Any who declares it may have it.
		{"10.0.5.7/32", "172.16.0.5", 1000, ""},
		{"10.0.5.7/32", "172.16.0.6", 1000, ""},
		{"10.0.5.7/32", "172.16.0.1", 1000, "on host 172.16.0.1, and 10.0.5.0/24 is node new's"},
		{"10.0.65.7/32", "172.16.0.7", 1000, ""},
		{"10.0.65.7/32", "172.16.0.8", 1000, ""},
		{"10.0.66.7/32", "172.16.0.8", 1000, "on host 172.16.0.8, and 10.0.64.0/18 is node wide's"},
		// A wider prefix holds what others have.
		{"10.0.0.0/22", "172.16.0.1", 1000, "on host 172.16.0.1, and 10.0.2.0/24 is node b's"},
		{"10.0.0.0/22", "", identityWorld, ""},
		{"10.0.0.0/23", "172.16.0.1", 1000, ""},
		{"0.0.0.0/0", "172.16.0.1", 1000, "on host 172.16.0.1, and 10.0.2.0/24 is node b's"},
		{"10.128.0.0/9", "172.16.0.1", 1000, ""},
	} {
		row := schema.IP{ID: s.id}
		if s.host != "" {
			row.HostIP = netip.MustParseAddr(s.host)
		}
		if diff := cmp.Diff(s.reason, c.host("far", netip.MustParsePrefix(s.prefix), row)); diff != "" {
			t.Errorf("%s on %q as %d (-want +got):\n%s", s.prefix, s.host, s.id, diff)
		}
	}
}

// TestClaims_HostAgainstModel compares host with the plain reading of the rule, while nodes come,
// change and go.
func TestClaims_HostAgainstModel(t *testing.T) {
	for seed := range 30 {
		r := rand.New(rand.NewPCG(uint64(seed), 5))
		c := newClaims("own", nil)
		world := map[schema.NodeKey]schema.Node{}
		host := func() netip.Addr { return netip.AddrFrom4([4]byte{172, 16, 0, byte(r.IntN(6))}) }
		prefix := func() netip.Prefix {
			p, _ := netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(256))}).Prefix(25 + r.IntN(8))
			return p
		}
		for range 300 {
			k := schema.NodeKey{Cluster: []string{"own", "far"}[r.IntN(2)], Name: fmt.Sprint(r.IntN(3))}
			if r.IntN(3) == 0 {
				c.remove(k)
				delete(world, k)
			} else {
				n := schema.Node{}
				for range r.IntN(3) {
					n.PodCIDRs = append(n.PodCIDRs, prefix())
				}
				for range r.IntN(3) {
					n.Addresses = append(n.Addresses, schema.NodeAddress{IP: host()})
				}
				c.set(k, n)
				world[k] = n
			}
			p, row := prefix(), schema.IP{HostIP: host(), ID: 1000}
			over, inside, mine, foreign := false, false, false, false
			for k, n := range world {
				if k.Cluster != "far" {
					continue
				}
				its := len(n.Addresses) == 0
				for _, a := range n.Addresses {
					its = its || a.IP == row.HostIP
				}
				for _, q := range n.PodCIDRs {
					switch {
					case q.Bits() <= p.Bits() && q.Contains(p.Addr()):
						over, mine = true, mine || its
					case q.Overlaps(p):
						inside = true
					}
				}
			}
			if !over && inside { // each of the prefixes inside needs an owner that fits
				for _, n := range world {
					for _, q := range n.PodCIDRs {
						if q.Bits() <= p.Bits() || !q.Overlaps(p) {
							continue
						}
						declaredHere, fits := false, false
						for k2, n2 := range world {
							for _, q2 := range n2.PodCIDRs {
								if k2.Cluster != "far" || q2 != q {
									continue
								}
								declaredHere = true
								fits = fits || len(n2.Addresses) == 0
								for _, a := range n2.Addresses {
									fits = fits || a.IP == row.HostIP
								}
							}
						}
						foreign = foreign || declaredHere && !fits
					}
				}
			}
			want := over && !mine || foreign
			if got := c.host("far", p, row); (got != "") != want {
				t.Fatalf("seed %d: %s on %s: %q, want refused %t; world %v", seed, p, row.HostIP, got, want, world)
			}
		}
		for k := range world {
			c.remove(k)
		}
		if len(c.owners) != 0 {
			t.Fatalf("owners are left: %v", c.owners)
		}
	}
}

// TestMesh_AddressOfAnotherNode: a node of a remote cannot write an address that another node of it
// has; the row before it stays, and a node that takes over a CIDR gets its rows.
func TestMesh_AddressOfAnotherNode(t *testing.T) {
	b, c := newMirrored(t)
	c.node(c.scope(), "n2", "172.16.2.2", "10.2.1.0/24")
	b.wantRows("far", [4]int{2, 1, 1, 1})

	c.ip(c.scope(), "10.2.0.5/32", "172.16.2.2", 2<<16+7)
	b.fault("far", schema.ResourceIPs, "on host 172.16.2.2, and 10.2.0.0/24 is node n1's")
	b.always("the row before stays", func() bool {
		row, _ := b.tables.IPs.Get(schema.IPKey{Cluster: "far", Prefix: netip.MustParsePrefix("10.2.0.5/32")})
		return row.Value.ID == 2<<16+5
	})
	// n3 is n1 by another name and address; its row may come before it is known.
	c.ip(c.scope(), "10.2.0.9/32", "172.16.2.3", 2<<16+5)
	b.fault("far", schema.ResourceIPs, "on host 172.16.2.3")
	c.node(c.scope(), "n3", "172.16.2.3", "10.2.0.0/24")
	b.wantRows("far", [4]int{3, 2, 1, 1})
	// The owner writes its row again.
	c.ip(c.scope(), "10.2.0.5/32", "172.16.2.1", 2<<16+5)
	kvstoretest.Eventually(t, func() string {
		for _, r := range b.remote("far").Resources {
			if r.Faults > 0 {
				return "faults are left: " + r.LastReason
			}
		}
		return ""
	})
	// A node that has another address keeps the rows that were taken, until it writes them again.
	c.node(c.scope(), "n1", "172.16.2.11", "10.2.0.0/24")
	b.always("rows stay", func() bool { return b.rows("far") == [4]int{3, 2, 1, 1} })
}

// TestOwnIPs: the same of our own cluster's store.
func TestOwnIPs(t *testing.T) {
	c := newCluster(t, "own", 1)
	c.fill(1)
	c.node(c.scope(), "n2", "172.16.1.2", "10.1.1.0/24")
	c.ip(c.scope(), "10.1.1.5/32", "172.16.1.1", 1<<16+5) // refused in the first list
	b := newBench(t, nil)
	cfg := kvstore.WatchConfig{Source: "etcd"}
	log := b.log.Logger()
	nodes := kvstore.NewWatch(c.client, schema.Nodes(c.scope()), b.tables.Nodes, cfg, log)
	ips := kvstore.NewWatch(c.client, b.mesh.OwnIPs().Judged(schema.IPs(c.scope())), b.tables.IPs, cfg, log)
	kvstoretest.Go(t, nodes.Run)
	kvstoretest.Go(t, func(ctx context.Context) error { return b.mesh.OwnIPs().Run(ctx, nodes.Listed(), ips) })
	want := func(rows map[string]string, refused int) {
		t.Helper()
		kvstoretest.Eventually(t, func() string {
			got := map[string]string{}
			for row := range b.tables.IPs.All() {
				got[row.Key.Prefix.String()] = row.Value.HostIP.String()
			}
			if st := ips.Status(); len(st.Rejections) != refused || int(st.Rejected) < refused {
				return fmt.Sprintf("refused: %+v", st.Rejections)
			}
			return cmp.Diff(rows, got)
		})
	}
	want(map[string]string{"10.1.0.5/32": "172.16.1.1"}, 1)
	c.ip(c.scope(), "10.1.1.5/32", "172.16.1.2", 1<<16+5)
	want(map[string]string{"10.1.0.5/32": "172.16.1.1", "10.1.1.5/32": "172.16.1.2"}, 0)
	c.ip(c.scope(), "10.1.0.5/32", "172.16.1.2", 1<<16+7)
	want(map[string]string{"10.1.0.5/32": "172.16.1.1", "10.1.1.5/32": "172.16.1.2"}, 1)
	// Once n2 has the CIDR too, its row is right.
	c.node(c.scope(), "n2", "172.16.1.2", "10.1.1.0/24", "10.1.0.0/24")
	want(map[string]string{"10.1.0.5/32": "172.16.1.2", "10.1.1.5/32": "172.16.1.2"}, 0)
	key := c.ip(c.scope(), "10.1.0.6/32", "192.0.2.1", 1<<16+7)
	want(map[string]string{"10.1.0.5/32": "172.16.1.2", "10.1.1.5/32": "172.16.1.2"}, 1)
	c.del(key)
	want(map[string]string{"10.1.0.5/32": "172.16.1.2", "10.1.1.5/32": "172.16.1.2"}, 0)
	if n := b.mesh.OwnIPs().faults(); n != 0 {
		t.Errorf("%d faults are left", n)
	}
}
