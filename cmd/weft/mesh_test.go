// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/internal/loopback"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// meshSide is one cluster as its operator sees it: a file of settings, and commands.
type meshSide struct {
	name, config string
	store        *kvstore.Client
}

// newMeshSide starts the etcd and `weft apiserver` of a cluster that is known to nobody. Both end with
// the test.
func newMeshSide(t *testing.T, name string, id uint32) meshSide {
	t.Helper()
	dir := t.TempDir()
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	etcd := kvstoretest.Start(t, kvstoretest.Options{})
	client := etcd.Client()
	configs := schema.ClusterConfigs()
	b, err := configs.Encode(name, schema.ClusterConfig{ID: id, MaxConnectedClusters: 255})
	fail(err)
	etcd.Put(client, configs.Prefix+name, string(b))
	etcd.Put(client, schema.HeartbeatKey, string(schema.EncodeTime(time.Now())))

	d, err := trust.Create(filepath.Join(dir, "trust"), name, nil)
	fail(err)
	ca, err := d.Authority(trust.RoleCluster)
	fail(err)
	key, err := trust.NewKey()
	fail(err)
	chain, err := ca.SignServer(key.Public(), trust.Server{Name: "apiserver", Hosts: []string{"127.0.0.1"}, Cluster: name}, trust.ServerLife)
	fail(err)
	cert, keyFile := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	fail(trust.WritePair(cert, keyFile, chain, key))
	peerCert, peerKey := d.Files(trust.RolePeer)
	etcdFile, listen, door := filepath.Join(dir, "etcd.yaml"), loopback.Free(t), loopback.Free(t)
	fail(os.WriteFile(etcdFile, []byte("endpoints: ["+etcd.Endpoint()+"]\n"), 0o600))
	s := meshSide{name, filepath.Join(dir, "apiserver.yaml"), client}
	fail(os.WriteFile(s.config, fmt.Appendf(nil, `
name: %[1]s-1
cluster: %[1]s
etcd: %s
listen: %s
replicas: [{name: %[1]s-1, urls: ["https://%[3]s"]}]
ca: %s
cert: %s
key: %s
clustermesh-dir: %s
cluster-id: %[11]d
join: {listen: "%[8]s", endpoints: ["%[8]s"], peer-ca-cert: %[9]s, peer-ca-key: %s}
`, name, etcdFile, listen, d.CAFile(), cert, keyFile, filepath.Join(dir, "mesh"), door, peerCert, peerKey, id), 0o600))
	kvstoretest.Go(t, func(ctx context.Context) error {
		_, err := s.run(ctx, "", "apiserver", "--log-level", "warn")
		return err
	})
	return s
}

// run runs a command on that side and returns what it prints.
func (s meshSide) run(ctx context.Context, in string, args ...string) (string, error) {
	var out, errs bytes.Buffer
	a := &app{
		in: strings.NewReader(in), out: &out, err: &errs, uid: func() int { return 1 },
		env: func(key string) (string, bool) { return s.config, key == "WEFT_CONFIG" },
	}
	root := newRoot(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil {
		a.report(err, false)
		err = fmt.Errorf("weft %s: %w\n%s%s", strings.Join(args, " "), err, &out, &errs)
	}
	return out.String(), err
}

// TestMesh_JoinedByTwoCommands joins two clusters whose API servers know nothing of each other, looks
// at them, and ends it again, all by commands.
func TestMesh_JoinedByTwoCommands(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) }) // after all others
	east, west := newMeshSide(t, "east", 1), newMeshSide(t, "west", 2)
	must := func(s meshSide, in string, args ...string) string {
		t.Helper()
		out, err := s.run(t.Context(), in, args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	contains := func(out string, parts ...string) {
		t.Helper()
		for _, p := range parts {
			if !strings.Contains(out, p) {
				t.Errorf("no %q in:\n%s", p, out)
			}
		}
	}
	token := must(east, "", "mesh", "token", "create", "--for", "west", "--id", "2")
	if strings.Count(token, "\n") != 1 || !strings.HasPrefix(token, "weft1.") {
		t.Fatal("more or less than one line with the token was printed")
	}
	if out := must(east, "", "mesh", "token", "list", "-o", "json"); strings.Contains(out, token[40:80]) {
		t.Error("the list shows the token")
	}
	joined := must(west, token, "mesh", "join")
	contains(joined, "joined east (1)", "its heartbeat is seen here", "ours is seen there", "words")
	words := joined[strings.Index(joined, "words")+len("words"):]
	words = strings.TrimSpace(words[:strings.Index(words, "\n")])
	contains(must(east, "", "mesh", "peers"), "west", "joined", words)
	contains(must(west, "", "mesh", "peers"), "east", "joined", words)
	for _, s := range []meshSide{east, west} {
		out := must(s, "", "mesh", "troubleshoot")
		contains(out, "cluster-config", "0 nodes")
		if strings.Contains(out, "not tried") {
			t.Errorf("%s: a step was not tried:\n%s", s.name, out)
		}
	}
	for _, c := range []struct {
		by   meshSide
		peer string
	}{{east, "west"}, {west, "east"}} {
		kvstoretest.Eventually(t, func() string { // the API server has noticed the client file, and mirrors
			if _, ok, err := c.by.store.Get(t.Context(), schema.ClusterConfigPrefix+c.peer); err != nil || !ok {
				return fmt.Sprintf("%s has no copy of %s: %v", c.by.name, c.peer, err)
			}
			return ""
		})
	}
	if out, err := west.run(t.Context(), token, "mesh", "join"); err == nil {
		t.Errorf("joined twice:\n%s", out)
	}

	contains(must(east, "", "mesh", "leave", "west"), "west and its 1 certificates are refused", "client file is removed")
	kvstoretest.Eventually(t, func() string {
		out, err := west.run(t.Context(), "", "mesh", "troubleshoot", "--timeout", "1s", "east")
		if err == nil || !strings.Contains(out+err.Error(), "has this cluster left there") {
			return fmt.Sprint("west is not told that it is refused: ", err, out)
		}
		return ""
	})
	contains(must(west, "", "mesh", "leave", "east"), "client file is removed")
	contains(must(west, "", "mesh", "peers"), "east", "left")
}
