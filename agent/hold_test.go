// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
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
	client, web := n.webService()
	n.eventually("healthy", n.unhealthy)

	n.must(n.etcd.Wipe())
	n.restartStore()
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
		return n.says("a1", h.Epoch) // then the identities are in the store too
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
	n.put(schema.EpochKey, id)
}

// put writes a key of the store.
func (n *testNode) put(key, value string) {
	n.t.Helper()
	if err := n.child(childKey+"="+key, childValue+"="+value); err != nil {
		n.t.Fatalf("put %s: %v", key, err)
	}
}

// says is nil if a node has said in the store that all its rows are there in an epoch.
func (n *testNode) says(node, epoch string) error {
	return n.child(childSays+"="+node, childEpoch+"="+epoch)
}

// child runs this binary where the store is, as what the variables say.
func (n *testNode) child(env ...string) error {
	cmd := n.ns.Command(n.t.Context(), n.exe)
	cmd.Env = append(append(os.Environ(), childStore+"="+n.etcd.Endpoint()), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// TestAgent_RestartInHold: an agent that is killed and started while rows are held, in a store that was
// wiped, holds them on; services and endpoints go on, and a person's adopt ends it.
func TestAgent_RestartInHold(t *testing.T) {
	n := newTestNode(t, "")
	n.putEpoch("11111111111111111111111111111111")
	n.start()
	client, _ := n.webService()
	n.eventually("healthy", n.unhealthy)
	n.stop(syscall.SIGTERM) // writes the checkpoint

	// The store is lost while the agent is down, and again the agent goes down in hold.
	n.must(n.etcd.Wipe())
	n.restartStore()
	n.putEpoch("22222222222222222222222222222222")
	held := func() error {
		h, err := n.client.HoldList(t.Context(), &api.HoldListRequest{})
		switch {
		case err != nil:
			return err
		case !h.Holding || len(h.Kinds) != 1 || h.Kinds[0].Resource != "definitions":
			return fmt.Errorf("held: %v", h)
		case len(n.rows("definitions", "")) != 1 || len(n.rows("frontends", "")) != 1:
			return errors.New("the service is not in the tables")
		}
		return nil
	}
	n.start()
	n.eventually("the definition is held", held)
	n.reach(client, "10.96.0.9:8080", "web")
	n.eventually("the checkpoint says so", func() error {
		l := n.line("hold")
		if l.Health != api.Health_HEALTH_WARNING {
			return fmt.Errorf("line %v", l)
		}
		return nil
	})
	n.stop(syscall.SIGTERM)
	n.start()
	n.eventually("the definition is held on", held)
	n.reach(client, "10.96.0.9:8080", "web")
	// A new backend is used although the definition is held, and one that goes is not.
	_, other := n.pod("other", "app=web")
	n.eventually("two backends", func() error { return n.backends(2) })
	if _, err := n.client.EndpointDelete(t.Context(), &api.EndpointDeleteRequest{Id: other.Id}); err != nil {
		t.Fatal(err)
	}
	n.eventually("one backend", func() error { return n.backends(1) })

	if _, err := n.client.HoldAdopt(t.Context(), &api.HoldAdoptRequest{Cluster: "elsewhere"}); status.Code(err) != codes.NotFound {
		t.Errorf("adopt of a cluster that is not there: %v", err)
	}
	r, err := n.client.HoldAdopt(t.Context(), &api.HoldAdoptRequest{By: "test"})
	if err != nil || r.Rows != 1 || !r.Everywhere {
		t.Errorf("adopt: %v %v", r, err)
	}
	n.eventually("nothing is held, and the service is gone", func() error {
		if l := n.line("hold"); l.Health != api.Health_HEALTH_OK || len(n.rows("frontends", "")) != 0 {
			return fmt.Errorf("%v, %d frontends", l, len(n.rows("frontends", "")))
		}
		return nil
	})
	n.stop(syscall.SIGTERM)
}

// backends says whether the frontend has so many.
func (n *testNode) backends(want int) error {
	for _, r := range n.rows("frontends", "") {
		if got := string(r.Value); strings.Contains(got, fmt.Sprintf(`"chosen":%d,`, want)) {
			return nil
		}
		return fmt.Errorf("frontend %v", r)
	}
	return errors.New("no frontend")
}

// TestAgent_AddressOfAnother: a row that puts a pod of this node on another host is refused.
func TestAgent_AddressOfAnother(t *testing.T) {
	n := newTestNode(t, "")
	n.start()
	_, web := n.pod("web", "app=web")
	n.eventually("published", func() error {
		if len(n.rows("ips", "")) < 2 || len(n.rows("nodes", "")) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	n.put(schema.IPsPrefix+"10.1.0.9", `{"IP":"10.1.0.9","Mask":null,"HostIP":"172.16.0.7","ID":77777,"Key":0,"Metadata":""}`)
	n.eventually("refused and shown", func() error {
		l := n.line("tables")
		if l.Health != api.Health_HEALTH_WARNING || !strings.Contains(l.Reason, "on host 172.16.0.7, and 10.1.0.0/28 is node a1's") {
			return fmt.Errorf("line %v", l)
		}
		return nil
	})
	for key := range n.rows("ips", "") {
		if strings.Contains(key, "10.1.0.9") {
			t.Errorf("row %s", key)
		}
	}
	// One of its own pods: the row before stays.
	n.put(schema.IPsPrefix+web.Addresses[0], fmt.Sprintf(`{"IP":%q,"Mask":null,"HostIP":"172.16.0.7","ID":77777,"Key":0,"Metadata":""}`, web.Addresses[0]))
	for _, r := range n.rows("ips", "") {
		if strings.Contains(fmt.Sprint(r), "77777") {
			t.Errorf("row %v", r)
		}
	}
	n.stop(syscall.SIGTERM)
}
