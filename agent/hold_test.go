// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/kvstore"
)

func TestHoldLine_SaysWhyAndWhoDecides(t *testing.T) {
	held := kvstore.GuardStatus{Hold: kvstore.HoldStatus{
		Holding: true, Reason: "the store is another one", Rows: 3, Kinds: []kvstore.HeldKind{{Resource: "ips", Rows: 3}},
		Owners: []kvstore.HeldOwner{{Name: "b1", Rows: 1, Confirmed: true}, {Name: "b2", Rows: 2}},
	}}
	l := holdLine(held)
	if l.Health != api.Health_HEALTH_WARNING || !strings.Contains(l.Summary, "3 rows") || !strings.Contains(l.Reason, "waits for the word of b2") ||
		!strings.Contains(l.Hint, "weft store adopt") {
		t.Errorf("held: %v", l)
	}
	held.Hold.Stuck = true
	if l := holdLine(held); l.Health != api.Health_HEALTH_FAILED || !strings.Contains(l.Reason, "too many are silent") {
		t.Errorf("stuck: %v", l)
	}
	if l := holdLine(kvstore.GuardStatus{}); l.Health != api.Health_HEALTH_OK {
		t.Errorf("nothing held: %v", l)
	}
}

// TestAgent_StoreWiped: a store that comes back empty takes nothing away, gets its rows back under
// the old numbers, and learns of this node that they are there.
func TestAgent_StoreWiped(t *testing.T) {
	n := newTestNode(t, "")
	n.putEpoch("11111111111111111111111111111111")
	n.start()
	client, _ := n.pod("client", "app=client")
	_, web := n.pod("web", "app=web")
	n.addService("name: web\nports: [{port: 8080, targetPort: http}]\nselector: {app: web}\nvips: [10.96.0.9]\n")
	n.reach(client, "10.96.0.9:8080", "web")
	n.eventually("healthy", n.unhealthy)

	n.must(n.etcd.Wipe())
	n.must(n.ns.Do(func() error { return n.etcd.Restart(t.Context()) }))
	n.putEpoch("22222222222222222222222222222222")
	n.eventually("rows of this node are back", func() error {
		for table, want := range map[string]int{"endpoints": 2, "ips": 4, "nodes": 1, "identities": 2} {
			if got := n.rows(table, ""); len(got) < want {
				return fmt.Errorf("%d %s", len(got), table)
			}
		}
		h, err := n.client.HoldList(t.Context(), &api.HoldListRequest{})
		switch {
		case err != nil:
			return err
		case h.Epoch != "22222222222222222222222222222222":
			return fmt.Errorf("epoch %s", h.Epoch)
		case len(h.Kinds) != 1 || h.Kinds[0].Resource != "definitions":
			return fmt.Errorf("held: %v", h) // the definition's owner is an operator, which is not there
		}
		return nil
	})
	n.reach(client, "10.96.0.9:8080", "web") // its definition is held
	n.reach(client, net.JoinHostPort(web.Addresses[0], "80"), "web")
	list, err := n.client.EndpointList(t.Context(), &api.EndpointListRequest{})
	n.must(err)
	for _, e := range list.Endpoints {
		if e.Name == "web" && e.Identity != web.Identity {
			t.Errorf("identity %d, was %d", e.Identity, web.Identity)
		}
	}
	if l := n.line("hold"); l.Health != api.Health_HEALTH_WARNING {
		t.Errorf("line %v", l)
	}
	// A person decides: the definition is written back.
	r, err := n.client.HoldReseed(t.Context(), &api.HoldReseedRequest{})
	if err != nil || r.Written != 1 {
		t.Errorf("reseed: %v %v", r, err)
	}
	n.eventually("nothing is held", func() error {
		if l := n.line("hold"); l.Health != api.Health_HEALTH_OK {
			return fmt.Errorf("%s: %s", l.Summary, l.Reason)
		}
		return nil
	})
	n.stop(syscall.SIGTERM)
}

// putEpoch writes the epoch of the store, as its operator does.
func (n *testNode) putEpoch(id string) {
	n.t.Helper()
	cmd := n.ns.Command(n.t.Context(), n.exe)
	cmd.Env = append(os.Environ(), childEpoch+"="+id, childStore+"="+n.etcd.Endpoint())
	if out, err := cmd.CombinedOutput(); err != nil {
		n.t.Fatalf("put epoch: %v: %s", err, out)
	}
}
