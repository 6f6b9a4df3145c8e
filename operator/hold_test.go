// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

const theWord = schema.OwnersPrefix + schema.OperatorOwner

// storedEpoch is the ID of the epoch that stands in the store.
func storedEpoch(t *testing.T, c *kvstore.Client) string {
	t.Helper()
	kv, _, err := c.Get(t.Context(), schema.EpochKey)
	if err != nil {
		t.Fatal(err)
	}
	return epochID(string(kv.Value))
}

// said is the owners row of the operator.
func said(t *testing.T, c *kvstore.Client) (o schema.Owner, mod int64) {
	t.Helper()
	kv, ok, err := c.Get(t.Context(), theWord)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return schema.Owner{}, 0
	}
	o, err = schema.Owners().Decode(schema.OperatorOwner, kv.Value)
	if err != nil {
		t.Fatal(err)
	}
	return o, kv.ModRevision
}

func TestKeeper_SaysThatItsRowsAreThere(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	k := leader(t, s, c, "", "web", "db")
	first, _ := said(t, c)
	if first.Epoch != storedEpoch(t, c) || !first.Complete || first.Rows != 2 {
		t.Errorf("said %+v", first)
	}

	wipe(t, s, c, k)
	for range 10 {
		if _, mod := said(t, c); mod != 0 {
			break
		}
		if err := k.turn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	o, mod := said(t, c)
	if o.Epoch != storedEpoch(t, c) || o.Epoch == first.Epoch || !o.Complete {
		t.Errorf("after a wipe it said %+v, before %+v", o, first)
	}
	for _, key := range []string{definition + "web", definition + "db"} {
		if kv, _, err := c.Get(t.Context(), key); err != nil || kv.ModRevision == 0 || kv.ModRevision > mod {
			t.Errorf("%s of revision %d, %v; the word is of %d", key, kv.ModRevision, err, mod)
		}
	}

	// What is said is of rows that are as they were seen.
	k.said = word{}
	v, err := k.look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Delete(c, definition+"web")
	if err := k.say(t.Context(), *k.term(), v); err != nil {
		t.Fatal(err)
	}
	if _, again := said(t, c); again != mod {
		t.Error("it spoke of a row that was gone")
	}
}

// A snapshot that has the last heartbeat and not the last definition, overtaken in revision before
// anybody looks, is another store all the same.
func TestKeeper_OldSnapshotUnderTheSameHeartbeat(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	k := leader(t, s, c, "", "old")
	epoch := storedEpoch(t, c)

	copied := t.TempDir()
	s.Save(copied)
	s.Put(c, definition+"new", "y")
	s.Put(c, definition+"old", "changed")
	turns(t, k, 1)
	s.RollBack(copied)
	s.Put(c, "burn", "x")
	s.Burn(c, 50)
	turns(t, k, 4)
	if storedEpoch(t, c) == epoch {
		t.Error("the epoch is that of the store before")
	}
	for key, want := range map[string]string{definition + "new": "y", definition + "old": "x"} {
		if kv, _, err := c.Get(t.Context(), key); err != nil || string(kv.Value) != want {
			t.Errorf("%s is %q, %v; want %q", key, kv.Value, err, want)
		}
	}
}

// Only the guard, which follows more of the store, saw that it is another one.
func TestKeeper_EpochThatTheGuardOwes(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	k := testKeeper(t, c, "", "one")
	var st kvstore.GuardStatus
	k.guard = func() kvstore.GuardStatus { return st }
	elect(t, c, k)
	s.Put(c, definition+"web", "x")
	beat(t, s, c, "1")
	turns(t, k, 2)
	first := storedEpoch(t, c)
	st = kvstore.GuardStatus{Generation: 2, Epoch: first, Lineage: kvstore.ContinuityFirst}
	turns(t, k, 2)
	if storedEpoch(t, c) != first {
		t.Fatal("a new epoch without a reason")
	}
	st.Generation, st.Lineage = 3, kvstore.ContinuityBroken
	turns(t, k, 3)
	second := storedEpoch(t, c)
	if second == first {
		t.Fatal("no new epoch")
	}
	if err := k.check(t.Context()); !errors.Is(err, errHold) {
		t.Errorf("in hold: %v", err)
	}
	st.Generation, st.Epoch = 4, second // the guard reads of it, and is about to list
	turns(t, k, 3)
	if n := testutil.ToFloat64(k.metrics.epochs); storedEpoch(t, c) != second || n != 2 {
		t.Errorf("%v epochs written, want 2", n)
	}
}

// holdNodes is a keeper in a hold that waits for three nodes.
func holdNodes(t *testing.T, s *kvstoretest.Server, c *kvstore.Client) (*keeper, string) {
	t.Helper()
	for n := range 3 {
		s.Put(c, fmt.Sprintf("%seast/n%d", schema.NodesPrefix, n), "{}")
	}
	k := leader(t, s, c, "", "web")
	wipe(t, s, c, k)
	turns(t, k, 3)
	if err := k.check(t.Context()); !errors.Is(err, errHold) {
		t.Fatalf("after a wipe: %v", err)
	}
	return k, storedEpoch(t, c)
}

func TestKeeper_HoldWithSilentNodesWaitsForAPerson(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	k, epoch := holdNodes(t, s, c)
	v, err := k.look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	now := k.looked
	for range 30 {
		now = now.Add(time.Minute)
		k.endHold(v, now)
	}
	if held, _ := k.hold(); !held || testutil.ToFloat64(k.metrics.stuck) != 1 || testutil.ToFloat64(k.metrics.silent) != 3 {
		t.Errorf("holding %v, stuck %v, %v silent: want it to wait for a person and for three nodes", held,
			testutil.ToFloat64(k.metrics.stuck), testutil.ToFloat64(k.metrics.silent))
	}

	// A decision about another life of the store is none.
	decide := func(epoch string) {
		t.Helper()
		b, err := schema.EncodeDecision(schema.Decision{Decision: schema.DecisionAdopt, Revision: 1, Epoch: epoch, By: "a test"})
		if err != nil {
			t.Fatal(err)
		}
		s.Put(c, schema.DecisionKey, string(b))
		turns(t, k, 1)
	}
	decide("0123456789abcdef0123456789abcdef")
	if held, _ := k.hold(); !held {
		t.Error("a decision of another life ended the hold")
	}
	decide(epoch)
	if err := k.check(t.Context()); err != nil || testutil.ToFloat64(k.metrics.holding) != 0 {
		t.Errorf("after the decision: %v", err)
	}

	// What the guard of the exports holds is shown as well.
	k.guard = func() kvstore.GuardStatus {
		return kvstore.GuardStatus{Hold: kvstore.HoldStatus{Holding: true, Stuck: true, Unconfirmed: 4}}
	}
	k.endHold(v, now)
	if m := k.metrics; testutil.ToFloat64(m.holding) != 1 || testutil.ToFloat64(m.stuck) != 1 || testutil.ToFloat64(m.silent) != 4 {
		t.Errorf("a guard that is stuck with four nodes: holding %v, stuck %v, %v silent",
			testutil.ToFloat64(m.holding), testutil.ToFloat64(m.stuck), testutil.ToFloat64(m.silent))
	}
}

// One node of many that does not come back cannot keep the others waiting for ever, and time in which
// the store was away is not counted.
func TestKeeper_HoldEndsWithItsTime(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	k, epoch := holdNodes(t, s, c)
	for n := range 2 {
		s.Put(c, fmt.Sprintf("%seast/n%d", schema.NodesPrefix, n), "{}")
		put(t, c, schema.Owners(), fmt.Sprintf("n%d", n), schema.Owner{Epoch: epoch, Complete: true})
	}
	turns(t, k, 1)
	v, err := k.look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k.endHold(v, k.looked.Add(time.Hour)) // nobody looked for an hour
	if held, _ := k.hold(); !held {
		t.Fatal("the hold ended while nobody looked")
	}
	for now, i := k.looked, 0; i < 20; i++ {
		now = now.Add(time.Minute)
		k.endHold(v, now)
	}
	if held, _ := k.hold(); held {
		t.Errorf("still holding, %v left", k.mem.HoldLeft)
	}
}

// A node that leaves in order while the keeper holds is waited for no longer; one whose row is only
// missing is, be there another one instead.
func TestKeeper_HoldDoesNotWaitForNodesThatLeft(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	k, epoch := holdNodes(t, s, c)
	for _, node := range []string{"n0", "n1", "new"} {
		s.Put(c, schema.NodesPrefix+"east/"+node, "{}")
		put(t, c, schema.Owners(), node, schema.Owner{Epoch: epoch, Complete: true})
	}
	holding := func(want bool, silent float64) {
		t.Helper()
		turns(t, k, 1)
		if held, _ := k.hold(); held != want || testutil.ToFloat64(k.metrics.silent) != silent {
			t.Fatalf("holding %v, %v silent; want %v, %v", held, testutil.ToFloat64(k.metrics.silent), want, silent)
		}
	}
	holding(true, 1)
	s.Put(c, schema.NodesPrefix+"east/n2", "{}")
	holding(true, 1)
	leave(t, c, "n1") // what it said before is its last word now
	holding(true, 1)
	// Over a restart of the operator too.
	b, err := encodeMemory(k.mem)
	if err != nil {
		t.Fatal(err)
	}
	if k.mem, err = decodeMemory(b); err != nil {
		t.Fatal(err)
	}
	leave(t, c, "n2")
	holding(false, 0)
}

// All nodes leave.
func TestKeeper_HoldEndsWhenAllHaveLeft(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	k, _ := holdNodes(t, s, c)
	for n := range 3 {
		s.Put(c, fmt.Sprintf("%seast/n%d", schema.NodesPrefix, n), "{}")
		turns(t, k, 1)
		if held, _ := k.hold(); !held {
			t.Fatalf("ended before n%d has left", n)
		}
		leave(t, c, fmt.Sprintf("n%d", n))
	}
	turns(t, k, 1)
	if held, _ := k.hold(); held {
		t.Errorf("%v nodes are waited for", testutil.ToFloat64(k.metrics.silent))
	}
}

func leave(t *testing.T, c *kvstore.Client, node string) {
	t.Helper()
	if _, err := kvstore.Leave(t.Context(), c, kvstore.LeaveConfig{Node: node}); err != nil {
		t.Fatal(err)
	}
}

// Endpoints go all at once, by hand: other clusters keep the backends.
func TestOperator_ExportsOutliveEndpointsDeletedByHand(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	put(t, c, schema.Definitions(), webKey, web("true"))
	for n, addr := range []string{"10.1.1.5", "10.1.2.5"} {
		node := fmt.Sprintf("n%d", n+1)
		put(t, c, schema.Nodes(scope), schema.NodeKey{Cluster: "east", Name: node}, schema.Node{Name: node, Cluster: "east", ClusterID: 1})
		put(t, c, schema.Endpoints(scope), schema.EndpointKey{Cluster: "east", Node: node, ID: 7}, pod(addr))
	}
	o, _ := start(t, testConfig("one"), kvstoretest.NewClient(t, s.ClientConfig()))
	want(t, c, exports+"default/web", "10.1.1.5")
	want(t, c, exports+"default/web", "10.1.2.5")
	if _, err := c.Etcd().Delete(t.Context(), schema.EndpointsPrefix, clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	kvstoretest.Eventually(t, func() string {
		if n := o.mirror.guard.Status().Hold.Rows; n != 2 {
			return fmt.Sprintf("%d rows held", n)
		}
		return ""
	})
	// What is published meanwhile has them still, and what one node really deletes is gone.
	put(t, c, schema.Endpoints(scope), schema.EndpointKey{Cluster: "east", Node: "n1", ID: 8}, pod("10.1.1.6"))
	want(t, c, exports+"default/web", "10.1.1.6")
	want(t, c, exports+"default/web", "10.1.2.5")
	if err := o.check(t.Context()); !errors.Is(err, errHold) {
		t.Errorf("numbers are collected in hold: %v", err)
	}
	if _, err := c.Delete(t.Context(), schema.EndpointsPrefix+"n1/8"); err != nil {
		t.Fatal(err)
	}
	kvstoretest.Eventually(t, func() string {
		kv, _, err := c.Get(t.Context(), exports+"default/web")
		if err != nil {
			return err.Error()
		}
		text := string(kv.Value)
		if strings.Contains(text, "10.1.1.6") || !strings.Contains(text, "10.1.1.5") || !strings.Contains(text, "10.1.2.5") {
			return text
		}
		return ""
	})
}

// A heartbeat that waited while somebody else was elected does nothing.
func TestOperator_EndedTermDoesNotBeat(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	o, stop := start(t, testConfig("one"), kvstoretest.NewClient(t, s.ClientConfig()))
	stop()
	f := elect(t, c, o.keeper)
	session := kvstore.NewSession(c, kvstore.SessionConfig{Revoke: true}, kvstoretest.Log(t))
	kvstoretest.Go(t, session.Run)
	o.client = c
	// A busy etcd may not answer in the time that a beat has.
	beat := func() (err error) {
		t.Helper()
		kvstoretest.Eventually(t, func() string {
			if err = o.beat(t.Context(), session, f); errors.Is(err, context.DeadlineExceeded) {
				return err.Error()
			}
			return ""
		})
		return err
	}
	if err := beat(); err != nil {
		t.Fatal(err)
	}
	s.Delete(c, f.key)
	before, _, err := c.Get(t.Context(), schema.HeartbeatKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := beat(); !errors.Is(err, errNotLeading) {
		t.Errorf("after its term: %v", err)
	}
	if after, _, err := c.Get(t.Context(), schema.HeartbeatKey); err != nil || after.ModRevision != before.ModRevision {
		t.Errorf("the heartbeat moved, %v", err)
	}
}
