// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"slices"
	"testing"
)

// TestTakeOver_RefusedByTheKernel: programs and maps that the kernel does not accept end Run with an
// error and leave what an earlier run attached at work; with what it accepts all is as before.
func TestTakeOver_RefusedByTheKernel(t *testing.T) {
	n := testLonely(t, "refused", ModeNative)
	n.start()
	a := n.addEndpoint(1, "10.0.1.11", "", 1001)
	b := n.addEndpoint(2, "10.0.1.12", "", 1002)
	echo(t, b.ns, 7)
	conn := dial(t, a.ns, netip.AddrPortFrom(b.IPv4, 7))
	works := func() {
		t.Helper()
		if err := exchange(conn, 100); err != nil {
			t.Errorf("the connection from before: %v", err)
		}
		if err := ask(a.ns, "tcp", netip.AddrPortFrom(b.IPv4, 7), 100); err != nil {
			t.Errorf("a new connection: %v", err)
		}
		if dropped := n.drops(); dropped != 0 {
			t.Errorf("%d packets were dropped", dropped)
		}
	}
	works()
	n.stop()
	before := n.pinnedLinks()

	good := n.cfg
	n.cfg.MaxIPCache = 1<<32 - 1 // more than the kernel can count
	d, err := New(n.cfg, n.tables, discard(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Run(t.Context()); err == nil {
		t.Fatal("maps of that size were accepted")
	}
	if after := n.pinnedLinks(); !slices.Equal(before, after) {
		t.Errorf("attached is %v, before %v", after, before)
	}
	works()

	n.cfg = good
	n.start()
	works()
}
