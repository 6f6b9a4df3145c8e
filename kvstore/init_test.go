// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

func TestInit(t *testing.T) {
	t.Parallel()
	srv, root := rooted(t)
	ic := kvstore.InitConfig{Cluster: "a", Nodes: []string{"a1"}, Remotes: []string{"c"}}

	first, err := kvstore.Init(t.Context(), root, ic)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range first.Steps {
		if !s.Done {
			t.Errorf("the first init found %q", s.Subject)
		}
	}
	second, err := kvstore.Init(t.Context(), root, ic)
	if err != nil {
		t.Fatal(err)
	}
	if second.Epoch != first.Epoch || len(first.Epoch) != 32 || len(second.Steps) != len(first.Steps) || len(second.Surplus) != 0 {
		t.Fatalf("first %+v, second %+v", first, second)
	}
	for _, s := range second.Steps {
		if s.Done {
			t.Errorf("the second init did %q again", s.Subject)
		}
	}
	ic.Nodes = append(ic.Nodes, "z2")
	third, err := kvstore.Init(t.Context(), srv.ClientAs(kvstore.UserAdmin("a")), ic)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range third.Steps {
		if s.Done != strings.Contains(s.Subject, "z2") { // z: never in an epoch, whose digits are hexadecimal
			t.Errorf("with another node: %+v", s)
		}
	}

	put := func(c *kvstore.Client, key string) error {
		_, err := c.Put(t.Context(), key, []byte("x"), 0)
		return err
	}
	list := func(c *kvstore.Client, prefix string) error {
		_, err := c.List(t.Context(), prefix, kvstore.ListOptions{})
		return err
	}
	node, remote, operator, local := srv.ClientAs("node-a1"), srv.ClientAs("remote"), srv.ClientAs("operator-a"), srv.ClientAs("local-a")
	for _, tt := range []struct {
		name string
		do   func(c *kvstore.Client, key string) error
		c    *kvstore.Client
		keys []string
		may  bool
	}{
		{"node-writes", put, node, []string{
			"cilium/state/nodes/v1/a/a1", "weft/v1/endpoints/a1/7", "weft/v1/owners/a1", "cilium/state/ip/v1/default/10.0.0.1",
			"cilium/state/identities/v1/id/1", "weft/v1/services/ns/web", "weft/v1/vips/10.0.0.1",
		}, true},
		{"node-writes-others", put, node, []string{
			"cilium/state/nodes/v1/a/z2", "weft/v1/endpoints/z2/7", "weft/v1/owners/z2", "cilium/cluster-config/a",
			"weft/v1/epoch", "cilium/.heartbeat", "cilium/state/services/v1/a/ns/web",
		}, false},
		{"node-reads", list, node, []string{"cilium/state/", "weft/v1/", schema.HeartbeatReadPrefix, "cilium/cluster-config/"}, true},
		{"node-reads-everything", list, node, []string{"other/", "weft/"}, false},
		{"remote-reads", list, remote, []string{"cilium/state/", schema.HeartbeatReadPrefix, "cilium/synced/a/", "weft/v1/owners/"}, true},
		{"remote-reads-more", list, remote, []string{"weft/v1/services/", "cilium/cluster-config/", "cilium/cache/", "cilium/synced/b/"}, false},
		{"remote-writes", put, remote, []string{"cilium/state/ip/v1/default/10.0.0.1", "weft/v1/owners/a1", "cilium/.heartbeat"}, false},
		{"another-remote-reads", list, srv.ClientAs("remote-c"), []string{"cilium/state/"}, true},
		{"operator-writes", put, operator, []string{
			"cilium/.heartbeat", "cilium/cluster-config/a", "cilium/state/services/v1/a/ns/web", "weft/v1/elections/operator/1",
			"cilium/state/identities/v1/id/1", "cilium/synced/a/cilium/state/nodes/v1",
		}, true},
		{"operator-writes-others", put, operator, []string{"cilium/state/nodes/v1/a/a1", "cilium/cluster-config/b"}, false},
		{"local-reads", list, local, []string{"cilium/cache/", "cilium/cluster-config/", "cilium/synced/"}, true},
		{"local-reads-more", list, local, []string{"cilium/state/"}, false},
		{"stranger", list, srv.ClientAs("somebody"), []string{"cilium/state/"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, key := range tt.keys {
				err := tt.do(tt.c, key)
				var e *kvstore.EndpointError
				switch {
				case tt.may && err != nil:
					t.Errorf("%s: %v", key, err)
				case !tt.may && (!errors.As(err, &e) || e.Reason != kvstore.ReasonUnauthorised):
					t.Errorf("%s: got %v, want refused", key, err)
				}
			}
		})
	}
	if kv, ok, err := remote.Get(t.Context(), "cilium/cluster-config/a"); err != nil || !ok {
		t.Fatalf("remote reads our cluster-config: %v, %v, %v", kv, ok, err)
	}
	if _, _, err := remote.Get(t.Context(), schema.EpochKey); err != nil {
		t.Fatalf("remote reads the epoch: %v", err)
	}
	if _, err := kvstore.Init(t.Context(), node, ic); err == nil {
		t.Fatal("a node may init")
	}

	// A watch that is refused says so, and goes on once it is granted.
	srv.Put(root, kvstoretest.Prefix+"a", "1")
	table := kvstoretest.Table()
	w := kvstoretest.Watch(t, remote, table, kvstoretest.WatchConfig())
	kvstoretest.Eventually(t, func() string {
		var e *kvstore.EndpointError
		if st := w.Status(); !errors.As(st.LastError, &e) || e.Reason != kvstore.ReasonUnauthorised {
			return "no error that says why"
		}
		return ""
	})
	if _, err := root.Etcd().RoleGrantPermission(t.Context(), "remote", kvstoretest.Prefix, "weft/test0", 0); err != nil {
		t.Fatal(err)
	}
	kvstoretest.WantRows(t, table, map[string]string{"a": "1"})
	// Rights that somebody added are reported and left.
	fourth, err := kvstore.Init(t.Context(), root, ic)
	if err != nil || len(fourth.Surplus) != 1 || !strings.Contains(fourth.Surplus[0], kvstoretest.Prefix) {
		t.Fatalf("surplus %v, %v", fourth.Surplus, err)
	}
}

func TestInit_Refuses(t *testing.T) {
	t.Parallel()
	srv := plain(t)
	c := srv.Client()
	for _, tt := range []struct {
		name, want string
		cfg        kvstore.InitConfig
	}{
		{"no-cluster", "cluster name", kvstore.InitConfig{}},
		{"node-name", "has a slash", kvstore.InitConfig{Cluster: "a", Nodes: []string{"a/b"}}},
		{"remote-name", "remote", kvstore.InitConfig{Cluster: "a", Remotes: []string{"B"}}},
		{"nobody-could-get-in", "use https", kvstore.InitConfig{Cluster: "a"}},
	} {
		if _, err := kvstore.Init(t.Context(), c, tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	if r, err := kvstore.Init(t.Context(), c, kvstore.InitConfig{Cluster: "a", NoAuth: true}); err != nil || r.Epoch == "" {
		t.Fatalf("without auth: %+v, %v", r, err)
	}
}
