// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"crypto"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/embedded"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// TestEtcd_TrustsItsOwnUsersOnly runs an etcd with the files of a directory of authorities: its users
// are taken, and what the key of the peer CA can sign is not, be its name that of the administrator.
func TestEtcd_TrustsItsOwnUsersOnly(t *testing.T) {
	d := newDir(t)
	cluster, peer := must(d.Authority(RoleCluster))(t), must(d.Authority(RolePeer))(t)
	forged := *peer
	forged.Role = RoleCluster // as whoever has stolen the key may do
	dir := t.TempDir()
	sign := func(name string, sign func(crypto.PublicKey) (Chain, error)) string {
		certFile, _, _, err := Issue(dir, name, sign)
		if err != nil {
			t.Fatal(err)
		}
		return certFile
	}
	server := sign("etcd-1", func(pub crypto.PublicKey) (Chain, error) {
		return cluster.SignServer(pub, Server{Name: "etcd-1", Hosts: []string{"127.0.0.1"}, Etcd: true}, ServerLife)
	})
	user := sign("root", func(pub crypto.PublicKey) (Chain, error) { return cluster.SignUser(pub, "root", UserLife) })
	thief := sign("thief", func(pub crypto.PublicKey) (Chain, error) { return forged.SignUser(pub, "root", UserLife) })

	url := freeURL(t)
	etcd, err := embedded.Start(t.Context(), embedded.Config{
		Dir: filepath.Join(t.TempDir(), "etcd"), ClientURL: url, UnsafeNoFsync: true,
		CAFile: d.StoreCAFile(), CertFile: server, KeyFile: KeyFileOf(server),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer etcd.Kill()
	put := func(cert string, limit time.Duration) error {
		cfg := kvstore.DefaultConfig()
		cfg.Endpoints, cfg.RequestTimeout = []string{url}, limit
		cfg.CAFile, cfg.CertFile, cfg.KeyFile = d.CAFile(), cert, KeyFileOf(cert)
		ctx, cancel := context.WithTimeout(t.Context(), cfg.RequestTimeout)
		defer cancel()
		_, err := kvstoretest.NewClient(t, cfg).Put(ctx, "a", []byte("1"), 0)
		return err
	}
	wantError(t, put(user, 20*time.Second), "")
	wantError(t, put(thief, 2*time.Second), string(kvstore.ReasonClientCA))

	// What the doctor says of the two, who have the same name.
	for cert, want := range map[string]struct {
		text   string
		causes []Cause
	}{
		user:  {"takes " + user, nil},
		thief: {"does not know who has signed " + thief + `; it takes those of "weft east cluster CA"`, []Cause{CauseRefused}},
	} {
		file := filepath.Join(dir, "client.yaml")
		text := fmt.Sprintf("endpoints: [%q]\ntrusted-ca-file: %s\ncert-file: %s\nkey-file: %s\n", url, d.CAFile(), cert, KeyFileOf(cert))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		wantSaid(t, ExamineClientFile(t.Context(), file, true), want.text, want.causes...)
	}
}

// freeURL is an https URL on a port of the loopback.
func freeURL(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "https://" + l.Addr().String()
}
