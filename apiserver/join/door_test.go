// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// caller enters a door from an address and notes whether it was sent off.
type caller struct {
	*visit
	sent bool
}

func call(d *door, from string) *caller {
	c := &caller{}
	c.visit = d.enter(netip.MustParseAddr(from), func() { c.sent = true })
	return c
}

func TestDoor_StrangersMakeRoom(t *testing.T) {
	d := newDoor()
	early := call(d, "198.51.100.1")
	var silent []*caller
	for range maxTalks - 1 {
		silent = append(silent, call(d, "192.0.2.1"))
	}
	// The door is full: who comes is let in, for the first of the address that has most.
	joiner := call(d, "203.0.113.1")
	if joiner.visit == nil || !silent[0].sent || silent[1].sent || early.sent {
		t.Fatalf("a joiner was let in %t; sent off: first %t, second %t, one of another address %t",
			joiner.visit != nil, silent[0].sent, silent[1].sent, early.sent)
	}
	joiner.known()
	for i := range 3 * maxTalks {
		call(d, netip.AddrFrom4([4]byte{198, 51, 101, byte(i)}).String())
	}
	if joiner.sent {
		t.Fatal("a joiner was sent off for a stranger")
	}
	if !early.sent || !silent[maxTalks-2].sent {
		t.Fatal("strangers have stayed for ever")
	}
	joiner.leave()
	joiner.leave() // again, as one that was sent off does
	if d.talks != maxTalks-1 {
		t.Fatalf("%d talks, want %d", d.talks, maxTalks-1)
	}
}

func TestDoor_IsFullOfJoiners(t *testing.T) {
	d := newDoor()
	var all []*caller
	for i := range maxTalks {
		c := call(d, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}).String())
		c.known()
		all = append(all, c)
	}
	if c := call(d, "203.0.113.1"); c.visit != nil {
		t.Fatal("one more than there are places")
	}
	all[3].leave()
	if c := call(d, "203.0.113.1"); c.visit == nil {
		t.Fatal("a place is free and nobody is let in")
	}
}

func TestDoor_LimitsEachAddress(t *testing.T) {
	d := newDoor()
	d.each = 0 // as if no time went by
	enter := func(from string) bool {
		c := call(d, from)
		if c.visit != nil {
			c.leave()
		}
		return c.visit != nil
	}
	for i := range eachBurst {
		if !enter("2001:db8::1") {
			t.Fatalf("connection %d is refused", i)
		}
	}
	if enter("2001:db8::2:3") {
		t.Error("one machine has as many addresses as it likes")
	}
	if !enter("2001:db8:0:1::1") || !enter("192.0.2.1") {
		t.Error("others are refused for it")
	}
	// Addresses are told apart only as far as there is room, and then all the same limited.
	for i := range 2 * maxAddresses {
		enter(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String())
	}
	if len(d.callers) > maxAddresses {
		t.Errorf("%d addresses are remembered", len(d.callers))
	}
}

// TestServer_SilentConnectionsKeepNobodyOut holds all places with connections that say nothing, more than
// once over, and joins.
func TestServer_SilentConnectionsKeepNobodyOut(t *testing.T) {
	east, west := newCluster(t, "east", 1, "10.1.0.0/16"), newCluster(t, "west", 2, "10.2.0.0/16")
	tok := east.token(t, Order{For: "west"})
	for range 3 * maxTalks {
		conn, err := net.Dial("tcp", east.door)
		must(t, err)
		defer conn.Close()
	}
	kvstoretest.Eventually(t, func() string {
		east.server.door.mu.Lock()
		defer east.server.door.mu.Unlock()
		if n := len(east.server.door.strangers); n != maxTalks {
			return fmt.Sprintf("%d places are held, want all %d", n, maxTalks)
		}
		return ""
	})
	if _, err := west.join(t, tok, nil); err != nil {
		t.Fatalf("while all places are held: %v", err)
	}
	east.server.door.mu.Lock()
	defer east.server.door.mu.Unlock()
	if len(east.server.door.strangers) == 0 {
		t.Error("the joiner had to wait until the others' time was over")
	}
}
