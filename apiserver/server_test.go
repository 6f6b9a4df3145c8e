// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// TestServer_StockClient does what etcdctl does: get, watch with and without revision, endpoint
// status and health, member list, and everything that writes.
func TestServer_StockClient(t *testing.T) {
	f := newFixture(t, func(c *Config) {
		c.Replicas = []Replica{{"east-1", []string{"https://a.example:1"}}, {"east-2", []string{"https://b.example:2"}}}
	})
	rev := f.Put(f.direct, "cilium/state/a", "1")
	f.Put(f.direct, "cilium/state/b", "2")
	c := f.client(t, "remote-west")
	ctx := t.Context()

	got, err := c.Get(ctx, "cilium/state/", clientv3.WithPrefix())
	if err != nil || len(got.Kvs) != 2 {
		t.Fatalf("get: %v, %v", got, err)
	}
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	past := c.Watch(wctx, "cilium/state/", clientv3.WithPrefix(), clientv3.WithRev(rev), clientv3.WithCreatedNotify())
	now := c.Watch(clientv3.WithRequireLeader(wctx), "cilium/state/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-past
	<-now
	f.Put(f.direct, "cilium/state/c", "3")
	for name, tt := range map[string]struct {
		ch   clientv3.WatchChan
		want []string
	}{"past": {past, []string{"a", "b", "c"}}, "now": {now, []string{"c"}}} {
		var keys []string
		for len(keys) < len(tt.want) {
			resp := <-tt.ch
			if err := resp.Err(); err != nil {
				t.Fatal(err)
			}
			for _, ev := range resp.Events {
				keys = append(keys, strings.TrimPrefix(string(ev.Kv.Key), "cilium/state/"))
			}
		}
		if diff := cmp.Diff(tt.want, keys); diff != "" {
			t.Errorf("watch %s (-want +got):\n%s", name, diff)
		}
	}

	st, err := c.Status(ctx, c.Endpoints()[0])
	if err != nil || st.Version == "" || st.DbSize == 0 || len(st.Errors) > 0 || st.Header.MemberId != st.Leader {
		t.Errorf("status: %v, %v", st, err)
	}
	if _, err := c.Get(ctx, "health"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("endpoint health takes a refusal for health: %v", err)
	}
	if al, err := c.AlarmList(ctx); err != nil || len(al.Alarms) > 0 {
		t.Errorf("alarms: %v, %v", al, err)
	}
	members, err := c.MemberList(ctx)
	if err != nil || len(members.Members) != 2 || members.Members[1].ClientURLs[0] != "https://b.example:2" {
		t.Errorf("members: %v, %v", members, err)
	}
	if on, err := c.AuthStatus(ctx); err != nil || !on.Enabled {
		t.Errorf("auth status: %v, %v", on, err)
	}
	if h, err := healthpb.NewHealthClient(f.dial(t, "anybody")).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil ||
		h.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}

	for name, do := range map[string]func() error{
		"put":     func() error { _, err := c.Put(ctx, "cilium/state/a", "x"); return err },
		"delete":  func() error { _, err := c.Delete(ctx, "cilium/state/a"); return err },
		"txn":     func() error { _, err := c.Txn(ctx).Then(clientv3.OpPut("cilium/state/a", "x")).Commit(); return err },
		"compact": func() error { _, err := c.Compact(ctx, 2); return err },
		"lease":   func() error { _, err := c.Grant(ctx, 60); return err },
		"defrag":  func() error { _, err := c.Defragment(ctx, c.Endpoints()[0]); return err },
		"hash":    func() error { _, err := c.HashKV(ctx, c.Endpoints()[0], 0); return err },
		"alarm":   func() error { _, err := c.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: 7}); return err },
		"member":  func() error { _, err := c.MemberRemove(ctx, 7); return err },
		"users":   func() error { _, err := c.UserList(ctx); return err },
		"snapshot": func() error {
			r, err := c.Snapshot(ctx)
			if err == nil {
				_, err = r.Read(make([]byte, 1))
			}
			return err
		},
	} {
		if err := do(); !errors.Is(err, rpctypes.ErrPermissionDenied) && status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v, want permission denied", name, err)
		}
	}
	if n := len(Stored(t, f)); n != 3 {
		t.Errorf("the store has %d keys, want 3", n)
	}
}

// Stored returns what stands under cilium/.
func Stored(t *testing.T, f *fixture) map[string]string {
	t.Helper()
	resp, err := f.direct.Etcd().Get(t.Context(), "cilium/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for _, kv := range resp.Kvs {
		m[string(kv.Key)] = string(kv.Value)
	}
	return m
}

// TestServer_PasswordsAreNotNeeded lets a client that was given a password go on as its certificate.
func TestServer_PasswordsAreNotNeeded(t *testing.T) {
	f := newFixture(t, nil)
	f.Put(f.direct, "cilium/state/a", "1")
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + f.address}, TLS: f.tls(t, "remote"), DialTimeout: 10 * time.Second,
		Username: "root", Password: "secret",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := c.Get(t.Context(), "cilium/state/a"); err != nil || got.Count != 1 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := c.Get(t.Context(), "cilium/cache/a"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("the password gave rights: %v", err)
	}
}

// TestServer_GoesOnWithoutTheEtcd kills the etcd under clients.
func TestServer_GoesOnWithoutTheEtcd(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Progress = 100 * time.Millisecond })
	rev := f.Put(f.direct, "cilium/state/a", "1")
	c := f.dial(t, "remote")
	kv := pb.NewKVClient(c)
	before, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("cilium/state/a")})
	if err != nil {
		t.Fatal(err)
	}
	w := openWatch(t, c)
	send(t, w, &pb.WatchCreateRequest{Key: []byte("cilium/state/"), RangeEnd: []byte("cilium/state0"), ProgressNotify: true, StartRevision: rev})
	if m := next(t, w); !m.Created {
		t.Fatal(m)
	}
	if m := next(t, w); len(m.Events) != 1 {
		t.Fatal(m)
	}
	if m := next(t, w); len(m.Events) != 0 || m.Header.Revision < rev {
		t.Fatalf("no word of progress: %v", m)
	}
	f.Kill()
	kvstoretest.Eventually(t, func() string {
		if !f.api.cache.Stale() {
			return "not stale"
		}
		return ""
	})
	after, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("cilium/state/a")})
	if err != nil || after.Header.ClusterId != before.Header.ClusterId || len(after.Kvs) != 1 {
		t.Errorf("away: %v, %v", after, err)
	}
	if _, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("cilium/state/a"), Revision: rev + 5}); status.Code(err) != codes.Unavailable {
		t.Errorf("a revision that another replica may have: %v", err)
	}
	st, err := pb.NewMaintenanceClient(c).Status(t.Context(), &pb.StatusRequest{})
	if err != nil || len(st.Errors) != 1 {
		t.Fatalf("status: %v, %v", st.GetErrors(), err)
	}
	since, ok := strings.CutPrefix(st.Errors[0], "stale: the store is away since ")
	if _, err := time.Parse(time.RFC3339, since); !ok || err != nil { // and nothing of what is behind it
		t.Errorf("status: %v, %v", st.Errors, err)
	}
	h, err := healthpb.NewHealthClient(c).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || h.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}
	if f.api.cache.Status().Answered == 0 {
		t.Error("nothing was counted")
	}
	f.Restart()
	f.wantFresh(t)
	f.Put(f.direct, "cilium/state/a", "2")
	for {
		m := next(t, w)
		if m.Canceled {
			t.Fatal(m)
		}
		if len(m.Events) > 0 {
			if string(m.Events[0].Kv.Value) != "2" {
				t.Fatal(m)
			}
			break
		}
	}
}

// TestServer_RestartCostsNobodyAList moves a client to a server that has just started: its watch goes
// on where it was.
func TestServer_RestartCostsNobodyAList(t *testing.T) {
	f := newFixture(t, nil)
	for i := range 50 {
		f.Put(f.direct, fmt.Sprintf("cilium/state/%02d", i), "1")
	}
	c := f.client(t, "remote")
	resp, err := c.Get(t.Context(), "cilium/state/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	ch := c.Watch(t.Context(), "cilium/state/", clientv3.WithPrefix(), clientv3.WithRev(resp.Header.Revision+1), clientv3.WithCreatedNotify())
	<-ch
	f.stop()
	rev := f.Put(f.direct, "cilium/state/while-away", "1")
	f.start(t, nil)
	last := f.Put(f.direct, "cilium/state/after", "1")
	var seen []int64
	for len(seen) < 2 {
		m := <-ch
		if err := m.Err(); err != nil {
			t.Fatal(err)
		}
		for _, ev := range m.Events {
			seen = append(seen, ev.Kv.ModRevision)
		}
	}
	if diff := cmp.Diff([]int64{rev, last}, seen); diff != "" {
		t.Errorf("revisions (-want +got):\n%s", diff)
	}
	again, err := c.Get(t.Context(), "cilium/state/00")
	if err != nil || again.Header.ClusterId != resp.Header.ClusterId {
		t.Errorf("after the restart: %v, %v", again, err)
	}
}

// TestServer_RotatesCertificates replaces the server's files and the CA while it runs.
func TestServer_RotatesCertificates(t *testing.T) {
	f := newFixture(t, nil)
	f.Put(f.direct, "cilium/state/a", "1")
	ask := func(name string) error {
		_, err := pb.NewKVClient(f.dial(t, name)).Range(t.Context(), &pb.RangeRequest{Key: []byte("cilium/state/a")})
		return err
	}
	if err := ask("remote"); err != nil {
		t.Fatal(err)
	}
	f.ca.Issue(t, "server", -time.Hour) // expired: clients see it at once
	if err := ask("remote"); err == nil {
		t.Error("the old certificate is still shown")
	}
	f.ca.Issue(t, "server", time.Hour)
	if err := ask("remote"); err != nil {
		t.Error(err)
	}
	// Files that are being replaced.
	for _, file := range []string{f.api.cfg.KeyFile, f.api.cfg.CAFile} {
		was, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		client := f.dial(t, "remote") // has read the CA
		if err := os.WriteFile(file, was[:len(was)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := pb.NewKVClient(client).Range(t.Context(), &pb.RangeRequest{Key: []byte("cilium/state/a")}); err != nil {
			t.Errorf("while %s is written: %v", file, err)
		}
		if err := os.WriteFile(file, was, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A client of a CA that is not ours.
	other := *f
	other.ca = kvstoretest.NewCA(t, "foreign")
	config := f.tls(t, "remote")
	config.Certificates = other.tls(t, "remote").Certificates
	if c, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + f.address}, TLS: config, DialTimeout: time.Second}); err == nil {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := c.Get(ctx, "cilium/state/a")
		cancel()
		c.Close()
		if err == nil {
			t.Error("a foreign certificate may read")
		}
	}
}
