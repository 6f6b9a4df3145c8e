// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// peer writes what a cluster joined with to our own store.
func (c *cluster) peer(name string, state schema.PeerState, id uint32, cidrs ...string) {
	c.t.Helper()
	p := schema.Peer{State: state, Since: time.Now(), ID: id, MaxClusters: 255, Root: "root"}
	for _, s := range cidrs {
		p.PodCIDRs = append(p.PodCIDRs, netip.MustParsePrefix(s))
	}
	key, value := encoded(c.t, schema.Peers(), name, p)
	c.put(key, value)
}

// newPinned is a bench with an own store, in which peers stand.
func newPinned(t *testing.T, own *cluster) *bench {
	t.Helper()
	return newBench(t, func(c *Config) { c.Peers, c.Follow = own.Client(), kvstoretest.WatchConfig() })
}

// pinned waits until a remote is held to an id (0: to none), and declares so much beside.
func (b *bench) pinned(name string, id uint32, beside ...string) {
	b.t.Helper()
	kvstoretest.Eventually(b.t, func() string {
		st := b.remote(name)
		if (st.Pin != nil) != (id != 0) || id != 0 && st.Pin.ID != id {
			return fmt.Sprintf("pin %+v, want id %d", st.Pin, id)
		}
		var got []string
		if st.Pin != nil {
			for _, p := range st.Pin.Beside {
				got = append(got, p.String())
			}
		}
		return cmp.Diff(beside, got)
	})
}

// TestMesh_PeersArePinned: what a cluster joined with goes before what it says later.
func TestMesh_PeersArePinned(t *testing.T) {
	t.Parallel()
	own, far := newCluster(t, "own", 1), newCluster(t, "far", 5)
	own.peer("far", schema.PeerJoined, 5, "10.5.0.0/16")
	far.fill(5)
	b := newPinned(t, own)
	b.add("far", far.ClientConfig())
	b.wantRows("far", one)
	b.pinned("far", 5)

	// It calls itself by another id: that is refused and said, and what was mirrored goes on.
	far.config(schema.ClusterConfig{ID: 6})
	b.phase("far", PhaseReady, "cluster id 6, and it joined with 5")
	if got := b.rows("far"); got != one {
		t.Errorf("rows %v", got)
	}
	kvstoretest.Eventually(t, func() string {
		if b.remote("far").Refusals == 0 {
			return "not counted"
		}
		return ""
	})
	// One that begins now takes nothing of it.
	late := newPinned(t, own)
	late.add("far", far.ClientConfig())
	late.phase("far", PhaseRefused, "cluster id 6, and it joined with 5")
	if got := late.rows("far"); got != [4]int{} {
		t.Errorf("rows %v of a cluster that is not the one that joined", got)
	}
	// It joined again, with the new one: it is another cluster now.
	own.peer("far", schema.PeerPending, 6, "10.5.0.0/16")
	far.id = 6
	far.fill(5)
	for _, who := range []*bench{b, late} {
		kvstoretest.Eventually(t, func() string {
			if st := who.remote("far"); st.ID != 6 || st.Phase != PhaseReady {
				return fmt.Sprintf("id %d, %s %s", st.ID, st.Phase, st.Reason)
			}
			return ""
		})
		who.wantRows("far", one)
	}
	b.pinned("far", 6)

	// It declares more than it joined with: that is taken, and said.
	far.node(far.scope(), "n2", "172.16.5.2", "10.77.1.0/24")
	b.wantRows("far", [4]int{2, 1, 1, 1})
	b.pinned("far", 6, "10.77.1.0/24")

	// What it joined with is nobody else's, however low his id.
	near := newCluster(t, "near", 2)
	near.fill(2)
	near.node(near.scope(), "n9", "172.16.2.9", "10.5.9.0/24")
	b.add("near", near.ClientConfig())
	b.fault("near", schema.ResourceNodes, "overlaps 10.5.0.0/16 of cluster far")

	// A store that lost the row unpins nothing; that it left does.
	own.del(schema.PeersPrefix + "far")
	own.peer("near", schema.PeerWaiting, 2, "10.2.0.0/16")
	own.peer("other", schema.PeerJoined, 9)
	b.pinned("far", 6, "10.77.1.0/24")
	b.pinned("near", 0) // nobody has let it in
	own.peer("far", schema.PeerLeft, 6, "10.5.0.0/16")
	b.pinned("far", 0)
}

// TestMesh_LostConfigIsBack: a cluster-config that is missing is asked for again soon, however rarely one that
// is there is read.
func TestMesh_LostConfigIsBack(t *testing.T) {
	t.Parallel()
	own, far := newCluster(t, "own", 1), newCluster(t, "far", 5)
	far.fill(5)
	b := newBench(t, func(c *Config) {
		c.Peers, c.Follow, c.ConfigPoll = own.Client(), kvstoretest.WatchConfig(), time.Hour
	})
	b.add("far", far.ClientConfig())
	b.wantRows("far", one)
	far.del(schema.ClusterConfigPrefix + "far")
	own.peer("far", schema.PeerJoined, 5) // what makes it read now
	b.phase("far", PhaseReady, "no cluster-config yet")
	far.config(schema.ClusterConfig{ID: 5})
	kvstoretest.Eventually(t, func() string {
		st := b.remote("far")
		if st.Phase != PhaseReady {
			return string(st.Phase)
		}
		return st.Reason
	})
}

// TestMesh_PinsWithoutOurStore: a remote is taken as it is while nobody can say what it joined with.
func TestMesh_PinsWithoutOurStore(t *testing.T) {
	t.Parallel()
	own, far := newCluster(t, "own", 1), newCluster(t, "far", 6)
	own.peer("far", schema.PeerJoined, 5)
	far.fill(5)
	own.Proxy.Part()
	b := newBench(t, func(c *Config) {
		c.Peers, c.Follow = kvstoretest.NewClient(t, own.ProxyConfig()), kvstoretest.WatchConfig()
	})
	b.add("far", far.ClientConfig())
	b.wantRows("far", one)
	own.Proxy.Rejoin()
	b.phase("far", PhaseReady, "and it joined with 5")
}

func TestClaims_Pinned(t *testing.T) {
	c := newClaims("own", map[string]Pin{"far": {ID: 2, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")}}, "any": {ID: 3}})
	declare := func(cluster, node string, cidrs ...string) {
		n := schema.Node{}
		for _, s := range cidrs {
			n.PodCIDRs = append(n.PodCIDRs, netip.MustParsePrefix(s))
		}
		c.set(schema.NodeKey{Cluster: cluster, Name: node}, n)
	}
	declare("far", "n1", "10.2.1.0/24", "10.3.1.0/24", "fd00::/64")
	declare("far", "n2", "10.3.1.0/24", "10.4.0.0/16")
	declare("any", "n1", "10.9.0.0/24")
	for name, want := range map[string]string{"far": "10.3.1.0/24 10.4.0.0/16 fd00::/64", "any": "", "nobody": ""} {
		pin, found := c.pinned(name)
		var got []string
		for _, p := range c.besides()[name] {
			got = append(got, p.String())
		}
		if text := strings.Join(got, " "); text != want || found != (name != "nobody") || found == (pin.ID == 0) {
			t.Errorf("%s: beside %q, found %t, pin %+v; want %q", name, text, found, pin, want)
		}
	}
	if c.pin("far", Pin{ID: 2, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")}}) {
		t.Error("the same pin is a change")
	}
	if !c.pin("far", Pin{}) {
		t.Error("a pin that is taken back is no change")
	}
	if c.covers("far", netip.MustParsePrefix("10.2.200.0/24")) {
		t.Error("a pin that was taken back claims")
	}
}

// What a remote declares beside its pin has none of the pin's precedence: of two that claim it the lower id
// has it, and never against a pin.
func TestClaims_BesideThePin(t *testing.T) {
	c := newClaims("own", map[string]Pin{
		"far":  {ID: 5, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}},
		"near": {ID: 9, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}},
	})
	declare := func(cluster string, id uint32, cidr string) {
		c.set(schema.NodeKey{Cluster: cluster, Name: "n1"}, schema.Node{ClusterID: id, PodCIDRs: []netip.Prefix{netip.MustParsePrefix(cidr)}})
	}
	declare("far", 5, "10.7.0.0/16")
	declare("other", 3, "10.7.1.0/24")
	for _, tt := range []struct {
		cluster string
		id      uint32
		cidr    string
		owner   string // "": it is its own
	}{
		{"far", 5, "10.5.1.0/24", ""},
		{"far", 5, "10.7.2.0/24", ""},
		{"far", 5, "10.7.1.0/24", "other"},
		{"far", 5, "10.9.1.0/24", "near"},
		{"other", 3, "10.7.1.0/24", ""},
		{"other", 3, "10.5.1.0/24", "far"},
	} {
		if owner, _, _ := c.conflict(tt.cluster, tt.id, netip.MustParsePrefix(tt.cidr)); owner != tt.owner {
			t.Errorf("%s of %s belongs to %q, want %q", tt.cidr, tt.cluster, owner, tt.owner)
		}
	}
}
