// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

type candidate struct {
	*kvstore.Elector
	sess  *kvstore.Session
	stops []func()
	leads chan bool // true when it begins, false when it ends
}

func (c *candidate) stop() {
	for _, s := range c.stops {
		s()
	}
}

func newCandidate(t *testing.T, cfg kvstore.Config, id string, ttl time.Duration) *candidate {
	t.Helper()
	client := kvstoretest.NewClient(t, cfg)
	sess, stop := session(t, client, kvstore.SessionConfig{TTL: ttl, Refresh: 50 * time.Millisecond, Revoke: true})
	c := &candidate{sess: sess, leads: make(chan bool, 100)}
	c.Elector = kvstore.NewElector(client, sess, kvstore.ElectorConfig{
		Name: "operator", ID: id, Follow: kvstoretest.WatchConfig(), Check: 20 * time.Millisecond,
	}, kvstoretest.Log(t))
	c.stops = []func(){kvstoretest.Go(t, func(ctx context.Context) error {
		return c.Run(ctx, func(ctx context.Context) error {
			c.leads <- true
			<-ctx.Done()
			c.leads <- false
			return ctx.Err()
		})
	}), stop}
	return c
}

func wantLeader(t *testing.T, id string, all ...*candidate) {
	t.Helper()
	kvstoretest.Eventually(t, func() string {
		leaders := 0
		for _, c := range all {
			st := c.Status()
			if st.Leader != id {
				return fmt.Sprintf("%q is said to lead, want %q", st.Leader, id)
			}
			if st.Leading {
				leaders++
			}
		}
		if leaders != 1 {
			return fmt.Sprintf("%d lead", leaders)
		}
		return ""
	})
}

// wantCandidates waits until so many stand: the oldest of them leads next.
func wantCandidates(t *testing.T, c *kvstore.Client, n int) {
	t.Helper()
	kvstoretest.Eventually(t, func() string {
		l, err := c.List(t.Context(), schema.ElectionsPrefix+"operator/", kvstore.ListOptions{})
		if err != nil || len(l.KVs) != n {
			return fmt.Sprintf("%d candidates, want %d (%v)", len(l.KVs), n, err)
		}
		return ""
	})
}

func TestElector(t *testing.T) {
	t.Parallel()
	srv := plain(t)
	a := newCandidate(t, srv.ProxyConfig(), "a", 2*time.Second)
	wantLeader(t, "a", a)
	b := newCandidate(t, srv.ClientConfig(), "b", 2*time.Second)
	wantCandidates(t, srv.Client(), 2)
	c := newCandidate(t, srv.ClientConfig(), "c", 2*time.Second)
	wantCandidates(t, srv.Client(), 3)
	wantLeader(t, "a", a, b, c)

	// A leader without a path to the store steps down before another takes over.
	srv.Proxy.Part()
	if begun, ended := <-a.leads, <-a.leads; !begun || ended {
		t.Fatal("a did not lead and step down")
	}
	if a.Status().Leading {
		t.Fatal("a says that it leads after it stepped down")
	}
	wantLeader(t, "b", b, c)
	srv.Proxy.Rejoin()
	wantLeader(t, "b", a, b, c)
	wantCandidates(t, srv.Client(), 3)

	// One that ends in order makes way at once.
	b.stop()
	wantLeader(t, "c", a, c)
	// The leader's key is deleted by somebody.
	l, _ := c.sess.Current()
	srv.Delete(srv.Client(), fmt.Sprintf("%soperator/%016x", schema.ElectionsPrefix, int64(l.ID)))
	wantLeader(t, "a", a, c)
	// A wiped store elects anew.
	srv.Wipe()
	kvstoretest.Eventually(t, func() string {
		if a.Status().Leading == c.Status().Leading {
			return "none or both lead"
		}
		return ""
	})
}

func TestElector_LeadReturns(t *testing.T) {
	t.Parallel()
	c := plain(t).Client()
	sess, _ := session(t, c, kvstore.SessionConfig{TTL: 2 * time.Second})
	e := kvstore.NewElector(c, sess, kvstore.ElectorConfig{Name: "x", ID: "a", Follow: kvstoretest.WatchConfig()}, kvstoretest.Log(t))
	broken := errors.New("broken for good")
	if err := e.Run(t.Context(), func(context.Context) error { return broken }); !errors.Is(err, broken) {
		t.Fatalf("got %v, want the error of lead", err)
	}
}

// A transaction behind the fence of a term does nothing after it, and several offices with a prefix
// of their own do not meet.
func TestElector_Fence(t *testing.T) {
	t.Parallel()
	s := plain(t)
	direct := s.Client()
	const prefix = "elsewhere/lock/"
	fences := make(chan []clientv3.Cmp, 2)
	stand := func(id string) (stop func()) {
		c := kvstoretest.NewClient(t, s.ClientConfig())
		sess, end := session(t, c, kvstore.SessionConfig{TTL: 5 * time.Second, Refresh: 50 * time.Millisecond, Revoke: true})
		e := kvstore.NewElector(c, sess, kvstore.ElectorConfig{
			Name: "mirror", ID: id, Prefix: prefix, Follow: kvstoretest.WatchConfig(), Check: 20 * time.Millisecond,
		}, kvstoretest.Log(t))
		run := kvstoretest.Go(t, func(ctx context.Context) error {
			return e.Run(ctx, func(ctx context.Context) error {
				fences <- e.Fence()
				<-ctx.Done()
				return ctx.Err()
			})
		})
		return func() { run(); end() }
	}
	writes := func(fence []clientv3.Cmp) bool {
		t.Helper()
		resp, err := direct.Txn(t.Context()).If(fence...).Then(clientv3.OpPut("row", "x")).Commit()
		if err != nil {
			t.Fatal(err)
		}
		return resp.Succeeded
	}
	stop := stand("one")
	first := <-fences
	if len(first) == 0 || !writes(first) {
		t.Fatalf("the leader's fence %v does not let it write", first)
	}
	l, err := direct.List(t.Context(), prefix, kvstore.ListOptions{})
	if err != nil || len(l.KVs) != 1 || string(l.KVs[0].Value) != "one" {
		t.Errorf("candidates %+v, %v; want one under %s", l.KVs, err, prefix)
	}
	stand("two")
	stop()
	second := <-fences
	if writes(first) {
		t.Error("a term that is over lets write")
	}
	if len(second) == 0 || !writes(second) {
		t.Error("the second leader cannot write")
	}
}
