// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
)

// TestRoles_WhatEachMay asks an etcd with auth for one key of each kind: every user may do what its
// work needs and nothing else.
func TestRoles_WhatEachMay(t *testing.T) {
	t.Parallel()
	srv, root := rooted(t)
	users := []string{"node-a1", "operator-a", "remote", "remote-c", "local-a", "admin-a", "somebody", "apiserver-a"}
	if _, err := kvstore.Init(t.Context(), root, kvstore.InitConfig{
		Cluster: "a", Nodes: []string{"a1", "a2"}, Remotes: []string{"c"},
	}); err != nil {
		t.Fatal(err)
	}
	clients := map[string]*kvstore.Client{}
	for _, u := range users {
		clients[u] = srv.ClientAs(u)
	}
	want := map[string]string{ // node-a1, operator-a, remote, remote-c, local-a, admin-a, somebody, apiserver-a
		"cilium/.heartbeat":                     "r  rw r  r  r  rw -  r",
		"cilium/cluster-config/a":               "r  rw r  r  r  rw -  rw",
		"cilium/cluster-config/b":               "r  r  -  -  r  rw -  rw",
		"cilium/synced/a/cilium/state/nodes/v1": "r  rw r  r  r  rw -  rw",
		"cilium/synced/b/cilium/state/nodes/v1": "r  r  -  -  r  rw -  rw",
		"cilium/state/nodes/v1/a/a1":            "rw r  r  r  -  rw -  r",
		"cilium/state/nodes/v1/a/a2":            "r  r  r  r  -  rw -  r",
		"cilium/state/nodes/v1/b/a1":            "r  r  r  r  -  rw -  r",
		"cilium/state/ip/v1/default/10.0.0.1":   "rw rw r  r  -  rw -  r",
		"cilium/state/identities/v1/id/1":       "rw rw r  r  -  rw -  r",
		"cilium/state/services/v1/a/ns/web":     "r  rw r  r  -  rw -  r",
		"cilium/state/services/v1/b/ns/web":     "r  r  r  r  -  rw -  r",
		"cilium/cache/ip/v1/b/10.0.0.1":         "r  r  -  -  r  rw -  rw",
		"cilium/kvstoremesh-lock/1":             "r  r  -  -  -  rw -  rw",
		"weft/v1/epoch":                         "r  rw r  r  r  rw -  r",
		"weft/v1/restored":                      "r  rw -  -  -  rw -  r",
		"weft/v1/decision":                      "rw r  r  r  -  rw -  r",
		"weft/v1/backup":                        "r  r  -  -  -  rw -  r",
		"weft/v1/owners/a1":                     "rw rw r  r  -  rw -  r",
		"weft/v1/owners/a2":                     "r  rw r  r  -  rw -  r",
		"weft/v1/owners/a1x":                    "r  rw r  r  -  rw -  r",
		"weft/v1/owners/@operator":              "r  rw r  r  -  rw -  r",
		"weft/v1/endpoints/a1/7":                "rw rw -  -  -  rw -  r",
		"weft/v1/endpoints/a2/7":                "r  rw -  -  -  rw -  r",
		"weft/v1/services/ns/web":               "rw rw -  -  -  rw -  r",
		"weft/v1/vips/10.96.0.1":                "rw rw -  -  -  rw -  r",
		"weft/v1/resting/70000":                 "r  rw -  -  -  rw -  r",
		"weft/v1/elections/operator/1":          "r  rw -  -  -  rw -  r",
		"weft/v1/mirror/b":                      "r  r  -  -  -  rw -  rw",
		"weft/v1/forget/b":                      "rw r  -  -  -  rw -  rw",
		"weft/v1/tokens/1":                      "r  r  -  -  -  rw -  rw",
		"weft/v1/peers/b":                       "r  rw -  -  -  rw -  rw",
		"weft/v2/epoch":                         "-  -  -  -  -  rw -  -",
		"other":                                 "-  -  -  -  -  rw -  -",
	}
	refused := func(err error) bool {
		t.Helper()
		if err == nil {
			return false
		}
		if errors.Is(err, rpctypes.ErrUserNotFound) {
			return true
		}
		var e *kvstore.EndpointError
		if !errors.As(err, &e) || e.Reason != kvstore.ReasonUnauthorised {
			t.Errorf("got %v, want done or refused", err)
		}
		return true
	}
	got := map[string]string{}
	for key := range want {
		srv.Put(root, key, "before")
		for i, u := range users {
			_, _, rerr := clients[u].Get(t.Context(), key)
			_, werr := clients[u].Put(t.Context(), key, []byte("x"), 0)
			_, derr := clients[u].Txn(t.Context()).Then(clientv3.OpDelete(key)).Commit()
			may := "-"
			switch r, w, d := !refused(rerr), !refused(werr), !refused(derr); {
			case w != d:
				may = "half" // puts and deletes are one right
			case r && w:
				may = "rw"
			case r:
				may = "r"
			case w:
				may = "w"
			}
			for i > 0 && len(got[key]) < 3*i {
				got[key] += " "
			}
			got[key] += may
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("rights (-want +got):\n%s", d)
	}

	// What is no key: only the administrator may touch the etcd itself. Compaction is such a thing too,
	// so an operator that compacts has a certificate of the administrator for it.
	lease, err := clients["node-a1"].Etcd().Grant(t.Context(), 600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clients["node-a1"].Put(t.Context(), "weft/v1/owners/a1", []byte("x"), lease.ID); err != nil {
		t.Fatal(err)
	}
	requests := map[string]func(context.Context, *clientv3.Client) error{
		"add-a-user": func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.UserAddWithOptions(ctx, "node-z", "", &clientv3.UserAddOptions{NoPassword: true})
			return err
		},
		"turn-auth-off": func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.AuthDisable(ctx)
			return err
		},
		"take-a-snapshot": func(ctx context.Context, c *clientv3.Client) error {
			r, err := c.Snapshot(ctx)
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			return err
		},
		"defragment": func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Defragment(ctx, srv.Endpoint())
			return err
		},
		"compact": func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Compact(ctx, 2)
			return err
		},
		"disarm": func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: 1, Alarm: etcdserverpb.AlarmType_NOSPACE})
			return err
		},
		"move-leader": func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.MoveLeader(ctx, 1)
			return err
		},
		"remove-a-member": func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.MemberRemove(ctx, 1)
			return err
		},
		"read-everything": func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Get(ctx, "", clientv3.WithFromKey(), clientv3.WithCountOnly())
			return err
		},
		"end-a-lease-of-somebody-else": func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Revoke(ctx, lease.ID)
			return err
		},
	}
	for name, do := range requests {
		for _, u := range []string{"node-a2", "operator-a", "remote", "local-a", "somebody"} {
			c := clients[u]
			if c == nil {
				c = srv.ClientAs(u)
				clients[u] = c
			}
			if u == "operator-a" && name == "end-a-lease-of-somebody-else" {
				continue // it may write owners' rows
			}
			if err := c.Do(t.Context(), name, func(ctx context.Context) error { return do(ctx, c.Etcd()) }); !refused(err) {

				t.Errorf("%s may %s", u, name)
			}
		}
	}
}
