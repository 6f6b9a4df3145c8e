// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

func TestRights_AreThoseOfTheName(t *testing.T) {
	for _, tt := range []struct {
		user     string
		key, end string
		want     bool
	}{
		{"remote", "cilium/state/a", "", true},
		{"remote", "cilium/state/", "cilium/state0", true},
		{"remote", "cilium/state/a", "cilium/state/b", true},
		{"remote", "cilium/state/", "cilium/state1", false},
		{"remote", "cilium/state", "cilium/state0", false},
		{"remote", "cilium/.heartbeat", "cilium/.heartbeau", true},
		{"remote", "cilium/.heartbeat", "cilium/.heartbeat0", true},
		{"remote", "cilium/cluster-config/east", "", true},
		{"remote", "cilium/cluster-config/east", "cilium/cluster-config/east\x00", true},
		{"remote", "cilium/cluster-config/east", "cilium/cluster-config/eastb", false},
		{"remote", "cilium/cluster-config/west", "", false},
		{"remote", "cilium/cluster-config/", "cilium/cluster-config0", false},
		{"remote", "cilium/synced/east/", "cilium/synced/east0", true},
		{"remote", "cilium/synced/west/x", "", false},
		{"remote", "cilium/cache/a", "", false},
		{"remote", "weft/v1/epoch", "", false},
		{"remote", "cilium/state/a", "\x00", false},
		{"remote", "\x00", "\x00", false},
		{"remote-west", "cilium/state/a", "", true},
		{"remote-", "cilium/state/a", "", false},
		{"remote-a/b", "cilium/state/a", "", false},
		{"local-east", "cilium/cache/", "cilium/cache0", true},
		{"local-east", "cilium/cluster-config/", "cilium/cluster-config0", true},
		{"local-east", "cilium/synced/", "cilium/synced0", true},
		{"local-east", "cilium/.heartbeat", "cilium/.heartbeau", true},
		{"local-east", "cilium/state/a", "", false},
		{"local-west", "cilium/cache/a", "", false},
		{"root", "cilium/state/a", "", false},
		{"admin-east", "cilium/state/a", "", false},
		{"", "cilium/state/a", "", false},
	} {
		if got := rightsOf(tt.user, "east").allow([]byte(tt.key), []byte(tt.end)); got != tt.want {
			t.Errorf("%s reads [%q, %q): %t, want %t", tt.user, tt.key, tt.end, got, tt.want)
		}
	}
}

// TestRights_AreThoseOfTheEtcd asks a real etcd with users and roles the same as a server, about
// ranges at every edge of the rights.
func TestRights_AreThoseOfTheEtcd(t *testing.T) {
	f := &fixture{ca: kvstoretest.NewCA(t, "mesh")}
	f.Server = kvstoretest.Start(t, kvstoretest.Options{CA: f.ca, Name: "etcd"})
	f.direct = f.Client()
	if _, err := kvstore.Init(t.Context(), f.direct, kvstore.InitConfig{Cluster: "east", Remotes: []string{"west"}}); err != nil {
		t.Fatal(err)
	}
	f.start(t, nil)
	var edges []string
	for _, s := range []string{
		"cilium/.heartbeat", "cilium/state/", "cilium/cache/", "cilium/cluster-config/", "cilium/cluster-config/east",
		"cilium/synced/east/",
	} {
		last := len(s) - 1
		edges = append(edges, s, s+"\x00", s[:last]+string(s[last]+1))
	}
	edges = append(edges, "", "\x00")
	for _, user := range []string{"remote-west", "local-east", "nobody"} {
		etcd := dial(t, f.Endpoint()[len("https://"):], credentialsOf(f, t, user))
		api := f.dial(t, user)
		for _, from := range edges {
			for _, to := range edges {
				if to > "\x00" && to <= from {
					continue // nothing lies between; the two disagree whether that may be read
				}
				req := &pb.RangeRequest{Key: []byte(from), RangeEnd: []byte(to), Serializable: true, CountOnly: true}
				_, want := pb.NewKVClient(etcd).Range(t.Context(), req)
				_, got := pb.NewKVClient(api).Range(t.Context(), req)
				if diff := cmp.Diff(fmt.Sprint(status.Convert(want)), fmt.Sprint(status.Convert(got))); diff != "" {
					t.Errorf("%s reads [%q, %q) (-etcd +server):\n%s", user, from, to, diff)
				}
			}
		}
		// A watch is refused in etcd's words.
		for _, key := range []string{"cilium/state/", "cilium/cache/"} {
			var told []*pb.WatchResponse
			for _, st := range []pb.Watch_WatchClient{openWatch(t, etcd), openWatch(t, api)} {
				send(t, st, &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(key + "z")})
				m := next(t, st)
				m.Header = nil
				told = append(told, m)
			}
			if fmt.Sprint(told[0]) != fmt.Sprint(told[1]) {
				t.Errorf("%s watches %s: etcd says %v, the server %v", user, key, told[0], told[1])
			}
		}
	}
}

// TestLimits_BoundAUser takes more than there is.
func TestLimits_BoundAUser(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Limits.Watches, c.Limits.Streams = 2, 2 })
	rev := f.Put(f.direct, "cilium/state/a", "1")
	c := f.dial(t, "remote")
	st := openWatch(t, c)
	for i := range 3 {
		send(t, st, &pb.WatchCreateRequest{Key: []byte("cilium/state/a"), StartRevision: rev})
		m := next(t, st)
		for len(m.Events) > 0 {
			m = next(t, st)
		}
		if m.Canceled != (i == 2) {
			t.Errorf("watch %d: %v", i, m)
		}
	}
	send(t, st, &pb.WatchCancelRequest{WatchId: 0})
	for !next(t, st).Canceled {
	}
	send(t, st, &pb.WatchCreateRequest{Key: []byte("cilium/state/a")})
	for m := next(t, st); !m.Created; m = next(t, st) {
		if m.Canceled {
			t.Errorf("a watch in place of another: %v", m)
		}
	}
	second := openWatch(t, c)
	send(t, second, &pb.WatchCreateRequest{Key: []byte("cilium/state/a")})
	next(t, second) // refused, but by a stream
	if _, err := openWatch(t, c).Recv(); status.Convert(err).Message() != "etcdserver: too many requests" {
		t.Errorf("a third stream: %v", err)
	}
	long, err := pb.NewKVClient(c).RangeStream(t.Context(), &pb.RangeRequest{Key: []byte("cilium/state/a")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := long.Recv(); status.Convert(err).Message() != "etcdserver: too many requests" {
		t.Errorf("a long answer as a third stream: %v", err)
	}
	large := &pb.RangeRequest{Key: make([]byte, maxRequest)}
	if _, err := pb.NewKVClient(c).Range(t.Context(), large); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a large request: %v", err)
	}

	f.stop()
	f.start(t, func(c *Config) { c.Limits.Requests = 0.001 })
	kv := pb.NewKVClient(f.dial(t, "remote-west"))
	if _, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("cilium/state/a")}); err != nil {
		t.Error(err)
	}
	if _, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("cilium/state/a")}); status.Convert(err).Message() != "etcdserver: too many requests" {
		t.Errorf("a second request: %v", err)
	}
	if _, err := pb.NewKVClient(f.dial(t, "remote")).Range(t.Context(), &pb.RangeRequest{Key: []byte("cilium/state/a")}); err != nil {
		t.Errorf("another user: %v", err)
	}
}

// TestLimits_ClientThatDoesNotRead is cut off; the others go on.
func TestLimits_ClientThatDoesNotRead(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Limits.Stuck = 300 * time.Millisecond })
	c := f.dial(t, "remote")
	slow, quick := openWatch(t, c), openWatch(t, f.dial(t, "remote"))
	for _, st := range []pb.Watch_WatchClient{slow, quick} {
		send(t, st, &pb.WatchCreateRequest{Key: []byte("cilium/state/"), RangeEnd: []byte("cilium/state0")})
		next(t, st)
	}
	value := string(make([]byte, 100_000))
	for i := range 20 {
		f.Put(f.direct, fmt.Sprintf("cilium/state/%d", i), value)
		for len(next(t, quick).Events) == 0 {
		}
	}
	kvstoretest.Eventually(t, func() string {
		if f.api.stuck.Load() != 1 {
			return "not cut off"
		}
		return ""
	})
	for {
		if _, err := slow.Recv(); err != nil {
			break // with its connection
		}
	}
	kvstoretest.Eventually(t, func() string {
		u := f.api.users.named("remote")
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.streams != 1 || u.links != 1 {
			return fmt.Sprintf("%d streams and %d connections are open, want one of each", u.streams, u.links)
		}
		return ""
	})
}

// TestLimits_BytesEndAWatch ends a stream that may not send an event before its deadline: an event
// that is left out would never be missed.
func TestLimits_BytesEndAWatch(t *testing.T) {
	f := newFixture(t, nil)
	rev := f.Put(f.direct, "cilium/state/a", "1")
	f.Put(f.direct, "cilium/state/a", "2")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	u := &user{bytes: rate.NewLimiter(0.001, 1)}
	for i, want := range []error{nil, rpctypes.ErrGRPCRequestTooManyRequests} {
		if err := u.spend(ctx, 1); err != want {
			t.Errorf("byte %d: %v, want %v", i, err, want)
		}
	}
	f.api.users.mu.Lock()
	f.api.users.byName["remote"] = &user{
		name: "remote", rights: rightsOf("remote", "east"), limits: f.api.cfg.Limits,
		requests: rate.NewLimiter(rate.Inf, 1), bytes: rate.NewLimiter(0.001, 1),
	}
	f.api.users.mu.Unlock()
	st, err := pb.NewWatchClient(f.dial(t, "remote")).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []int64{rev, rev + 1} {
		req := state(0)
		req.StartRevision = from
		send(t, st, req)
	}
	for {
		if _, err := st.Recv(); err != nil {
			if status.Convert(err).Message() != "etcdserver: too many requests" {
				t.Error(err)
			}
			return
		}
	}
}
