// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// TestAPIServer_AnswersLikeEtcd asks the process and the etcd behind it the same with the same
// certificate, by a stock client: answers and refusals are the same but for the ids of who answered.
// Then others try to connect.
func TestAPIServer_AnswersLikeEtcd(t *testing.T) {
	f := newFace(t, 1)
	f.put("cilium/cluster-config/east", `{"id":1}`)
	f.put("cilium/cluster-config/west", `{"id":2}`)
	first := f.put("cilium/state/a", "1")
	f.put("cilium/state/a", "2")
	f.put("cilium/state/b", "1")
	if _, err := f.root.Delete(t.Context(), "cilium/state/b"); err != nil {
		t.Fatal(err)
	}
	f.put("cilium/state/c", "1")
	last := f.put("other", "nobody's")

	user := f.tls("remote-west")
	etcd, api := f.client(user, f.etcd.Endpoint()), f.client(user, f.replicas[0].url())
	get := func(key string, opts ...clientv3.OpOption) func(context.Context, *clientv3.Client) (any, error) {
		return func(ctx context.Context, c *clientv3.Client) (any, error) {
			resp, err := c.Get(ctx, key, opts...)
			if err != nil {
				return nil, err
			}
			resp.Header.ClusterId, resp.Header.MemberId, resp.Header.RaftTerm = 0, 0, 0
			return resp, nil
		}
	}
	watch := func(key string, events int, opts ...clientv3.OpOption) func(context.Context, *clientv3.Client) (any, error) {
		return func(ctx context.Context, c *clientv3.Client) (any, error) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			var seen []string
			for resp := range c.Watch(ctx, key, opts...) {
				if err := resp.Err(); err != nil {
					return nil, err
				}
				for _, ev := range resp.Events {
					seen = append(seen, fmt.Sprintf("%v before %v", ev, ev.PrevKv))
				}
				if len(seen) >= events {
					return seen, nil
				}
			}
			return seen, errors.New("the watch ended")
		}
	}
	prefix := clientv3.WithPrefix()
	operations := []struct {
		name string
		code string // "": it is answered
		do   func(context.Context, *clientv3.Client) (any, error)
	}{
		{"get", "", get("cilium/state/a")},
		{"get-nothing", "", get("cilium/state/b")},
		{"get-prefix", "", get("cilium/state/", prefix)},
		{"get-from-to", "", get("cilium/state/a", clientv3.WithRange("cilium/state/b"))},
		{"get-at-revision", "", get("cilium/state/", prefix, clientv3.WithRev(first))},
		{"get-serializable", "", get("cilium/state/", prefix, clientv3.WithSerializable())},
		{"get-keys", "", get("cilium/state/", prefix, clientv3.WithKeysOnly())},
		{"get-count", "", get("cilium/state/", prefix, clientv3.WithCountOnly())},
		{"get-page", "", get("cilium/state/", prefix, clientv3.WithLimit(1), clientv3.WithRev(last))},
		{"get-newest", "", get("cilium/state/", clientv3.WithLastRev()...)},
		{"get-cluster-config", "", get("cilium/cluster-config/east")},
		{"get-later", "OutOfRange", get("cilium/state/a", clientv3.WithRev(last+1000))},
		{"watch-past", "", watch("cilium/state/", 5, prefix, clientv3.WithRev(first))},
		{"watch-previous", "", watch("cilium/state/", 5, prefix, clientv3.WithRev(first), clientv3.WithPrevKV())},
		{"watch-deletions", "", watch("cilium/state/", 1, prefix, clientv3.WithRev(first), clientv3.WithFilterPut())},
		{"read-txn", "", func(ctx context.Context, c *clientv3.Client) (any, error) {
			resp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Value("cilium/state/a"), "=", "2")).
				Then(clientv3.OpGet("cilium/state/a")).Else(clientv3.OpGet("cilium/state/c")).Commit()
			if err != nil {
				return nil, err
			}
			resp.Header.ClusterId, resp.Header.MemberId, resp.Header.RaftTerm = 0, 0, 0
			return resp, nil
		}},
		{"get-everything", "PermissionDenied", get("", clientv3.WithFromKey())},
		{"get-other", "PermissionDenied", get("other")},
		{"get-cache", "PermissionDenied", get("cilium/cache/", prefix)},
		{"get-config-of-another", "PermissionDenied", get("cilium/cluster-config/west")},
		{"watch-everything", "PermissionDenied", watch("", 1, prefix)},
		{"watch-cache", "PermissionDenied", watch("cilium/cache/", 1, prefix)},
		{"put", "PermissionDenied", func(ctx context.Context, c *clientv3.Client) (any, error) {
			return c.Put(ctx, "cilium/state/a", "x")
		}},
		{"delete", "PermissionDenied", func(ctx context.Context, c *clientv3.Client) (any, error) {
			return c.Delete(ctx, "cilium/state/", prefix)
		}},
		{"write-txn", "PermissionDenied", func(ctx context.Context, c *clientv3.Client) (any, error) {
			return c.Txn(ctx).Then(clientv3.OpPut("cilium/state/a", "x")).Commit()
		}},
		{"compact", "PermissionDenied", func(ctx context.Context, c *clientv3.Client) (any, error) { return c.Compact(ctx, last) }},
		{"defrag", "PermissionDenied", func(ctx context.Context, c *clientv3.Client) (any, error) {
			return c.Defragment(ctx, c.Endpoints()[0])
		}},
		{"snapshot", "PermissionDenied", func(ctx context.Context, c *clientv3.Client) (any, error) {
			r, err := c.Snapshot(ctx)
			if err != nil {
				return nil, err
			}
			defer r.Close()
			return io.ReadAll(r)
		}},
		{"hash", "PermissionDenied", func(ctx context.Context, c *clientv3.Client) (any, error) {
			return c.HashKV(ctx, c.Endpoints()[0], 0)
		}},
		{"users", "PermissionDenied", func(ctx context.Context, c *clientv3.Client) (any, error) { return c.UserList(ctx) }},
		{"roles", "PermissionDenied", func(ctx context.Context, c *clientv3.Client) (any, error) { return c.RoleList(ctx) }},
		{"auth-off", "PermissionDenied", func(ctx context.Context, c *clientv3.Client) (any, error) { return c.AuthDisable(ctx) }},
		{"health", "PermissionDenied", get("health")}, // which 'etcdctl endpoint health' takes for health
	}
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			want, wantErr := op.do(ctx, etcd)
			got, err := op.do(ctx, api)
			if code := codeOf(wantErr); code != op.code {
				t.Errorf("the etcd says %q (%v), want %q", code, wantErr, op.code)
			}
			if diff := cmp.Diff(codeOf(wantErr), codeOf(err)); diff != "" {
				t.Errorf("codes (-etcd +server): %s\nof %v", diff, err)
			}
			if err == nil {
				if diff := cmp.Diff(fmt.Sprint(want), fmt.Sprint(got)); diff != "" {
					t.Errorf("answers (-etcd +server):\n%s", diff)
				}
			}
		})
	}
	whoMayConnect(t, f)
	// What no client of the mesh needs, and etcd gives to everybody.
	ctx := t.Context()
	for name, do := range map[string]func() error{
		"lease":         func() error { _, err := api.Grant(ctx, 60); return err },
		"leases":        func() error { _, err := api.Leases(ctx); return err },
		"member remove": func() error { _, err := api.MemberRemove(ctx, 7); return err },
		"move leader":   func() error { _, err := api.MoveLeader(ctx, 7); return err },
		"alarm disarm":  func() error { _, err := api.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: 7}); return err },
	} {
		if err := do(); codeOf(err) != "PermissionDenied" {
			t.Errorf("%s: %v, want it refused", name, err)
		}
	}
	if kv, found, err := f.root.Get(ctx, "cilium/state/a"); err != nil || !found || string(kv.Value) != "2" {
		t.Errorf("after writes that were refused: %v, %v", kv, err)
	}
	f.noRaces()
}

// codeOf is the name of the gRPC code of an error of the client library; "": there is none.
func codeOf(err error) string {
	var e rpctypes.EtcdError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code().String()
	}
	if _, reason, ok := strings.Cut(err.Error(), "rpc error: code = "); ok { // a watch was cancelled for it
		reason, _, _ = strings.Cut(reason, " ")
		return reason
	}
	return status.Code(err).String()
}

// whoMayConnect shows certificates that are none, of others, without rights or expired.
func whoMayConnect(t *testing.T, f *face) {
	shows := func(c tls.Certificate) *tls.Config {
		cfg := f.tls("")
		cfg.Certificates = append(cfg.Certificates, c)
		return cfg
	}
	for name, tt := range map[string]struct {
		client    *tls.Config
		connected bool
		code      string // of a read
	}{
		"remote":  {f.tls("remote"), true, ""},
		"nobody":  {f.tls("nobody"), true, "PermissionDenied"},
		"admin":   {f.tls("admin-east"), true, "PermissionDenied"},
		"none":    {f.tls(""), false, ""},
		"foreign": {shows(certificate(t, kvstoretest.NewCA(t, "foreign"), "remote", time.Hour)), false, ""},
		"expired": {shows(certificate(t, f.ca, "remote-late", -time.Hour)), false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if err := handshake(f.replicas[0].address, tt.client); (err == nil) != tt.connected {
				t.Fatalf("connected: %v, want it: %t", err, tt.connected)
			}
			if !tt.connected {
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if _, err := f.client(tt.client, f.replicas[0].url()).Get(ctx, "cilium/state/a"); codeOf(err) != tt.code {
				t.Errorf("get: %v, want %q", err, tt.code)
			}
		})
	}
}

// handshake connects until the server has said something. What it thinks of our certificate it says
// after a handshake that was good for us.
func handshake(address string, cfg *tls.Config) error {
	cfg = cfg.Clone()
	cfg.NextProtos = []string{"h2"}
	c, err := tls.Dial("tcp", address, cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

// TestAPIServer_ReplicasUnderAClient lets a client that knows one replica learn of the other, and
// kills both in turn, and the etcd: the client's watch sees each change once, and nothing is listed
// anew.
func TestAPIServer_ReplicasUnderAClient(t *testing.T) {
	f := newFace(t, 2)
	var want []int64
	write := func(n int) {
		t.Helper()
		for range n {
			want = append(want, f.put("cilium/state/a", fmt.Sprint(len(want))))
		}
	}
	write(5)
	c := f.client(f.tls("remote-west"), f.replicas[0].url())
	ctx := t.Context()
	// As 'etcdctl --cluster' and every client with AutoSyncInterval do.
	if err := c.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	both := []string{f.replicas[0].url(), f.replicas[1].url()}
	slices.Sort(both)
	if diff := cmp.Diff(both, slices.Sorted(slices.Values(c.Endpoints()))); diff != "" {
		t.Fatalf("endpoints (-want +got):\n%s", diff)
	}
	members := map[uint64]string{}
	for _, url := range both {
		st, err := c.Status(ctx, url)
		if err != nil || len(st.Errors) > 0 || st.Version == "" || st.DbSize == 0 || st.Leader != st.Header.MemberId {
			t.Fatalf("endpoint status of %s: %v, %v", url, st, err)
		}
		members[st.Header.MemberId] = url
	}
	list, err := c.MemberList(ctx)
	if err != nil || len(list.Members) != 2 {
		t.Fatalf("member list: %v, %v", list, err)
	}
	for _, m := range list.Members {
		if members[m.ID] != m.ClientURLs[0] || m.Name == "" || m.IsLearner {
			t.Errorf("member list has %v, and endpoint status %v", m, members)
		}
	}
	if alarms, err := c.AlarmList(ctx); err != nil || len(alarms.Alarms) > 0 {
		t.Errorf("alarms: %v, %v", alarms, err)
	}

	var seen []int64
	ch := c.Watch(ctx, "cilium/state/", clientv3.WithPrefix(), clientv3.WithRev(want[0]))
	see := func() {
		t.Helper()
		for len(seen) < len(want) {
			select {
			case m := <-ch:
				if err := m.Err(); err != nil {
					t.Fatal(err)
				}
				for _, ev := range m.Events {
					seen = append(seen, ev.Kv.ModRevision)
				}
			case <-time.After(patience):
				t.Fatalf("saw %v of %v", seen, want)
			}
		}
	}
	get := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if got, err := c.Get(ctx, "cilium/state/a"); err != nil || string(got.Kvs[0].Value) != fmt.Sprint(len(want)-1) {
			t.Fatalf("get: %v, %v", got, err)
		}
	}
	see()
	for _, r := range f.replicas {
		if err := r.stop(syscall.SIGKILL); err == nil {
			t.Fatal("a killed process ended well")
		}
		write(3)
		see()
		get()
		r.start()
		r.waitFresh()
	}
	for _, r := range f.replicas { // both at once
		r.stop(syscall.SIGKILL) //nolint:errcheck // it was killed
	}
	write(3)
	for _, r := range f.replicas {
		r.start()
	}
	see()
	get()
	for _, r := range f.replicas {
		r.waitFresh()
	}

	f.etcd.Kill()
	kvstoretest.Eventually(t, func() string {
		st, err := c.Status(ctx, both[0])
		if err != nil {
			return err.Error()
		}
		if !strings.HasPrefix(strings.Join(st.Errors, ""), "stale: the store is away since ") {
			return fmt.Sprintf("status says %q", st.Errors)
		}
		return ""
	})
	get()
	for _, r := range f.replicas {
		if got := r.metric("weft_apiserver_keys"); got == "0" || got == "" {
			t.Errorf("%s shows %q keys", r.name, got)
		}
	}
	f.etcd.Restart()
	write(3)
	see()
	// A replica that has not found the etcd again answers from what it has, and says that it is stale.
	for _, r := range f.replicas {
		r.waitFresh()
	}
	get()
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("revisions (-want +got):\n%s", diff)
	}
	for _, r := range f.replicas {
		if err := r.stop(syscall.SIGTERM); err != nil {
			t.Errorf("%s, which was asked to end: %v", r.name, err)
		}
	}
	f.noRaces()
}

// metric reads one metric without labels.
func (r *replica) metric(name string) string {
	r.f.t.Helper()
	resp, err := http.Get("http://" + r.metrics + "/metrics")
	if err != nil {
		r.f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.f.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
