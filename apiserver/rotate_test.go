// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"crypto"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// rotation is an API server whose certificates come from a directory of authorities, and clients that
// never stop asking.
type rotation struct {
	*fixture
	dir            *trust.Dir
	server, remote string // certificate files
	ca             string // the clients' copy of the CA file; the server has its own

	rounds [4]atomic.Int64 // connections made and used, of each client
}

func newRotation(t *testing.T) *rotation {
	t.Helper()
	r := &rotation{ca: filepath.Join(t.TempDir(), "east.ca.crt")}
	var err error
	if r.dir, err = trust.Create(filepath.Join(t.TempDir(), "ca"), "east", nil); err != nil {
		t.Fatal(err)
	}
	issue := func(role trust.Role, name string, sign func(*trust.Authority, crypto.PublicKey) (trust.Chain, error)) string {
		a, err := r.dir.Authority(role)
		if err != nil {
			t.Fatal(err)
		}
		file, _, _, err := trust.Issue(r.dir.Issued(), name, func(pub crypto.PublicKey) (trust.Chain, error) { return sign(a, pub) })
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	r.server = issue(trust.RoleCluster, "east-1", func(a *trust.Authority, pub crypto.PublicKey) (trust.Chain, error) {
		return a.SignServer(pub, trust.Server{Name: "east-1", Cluster: "east", Hosts: []string{"127.0.0.1"}}, trust.ServerLife)
	})
	r.remote = issue(trust.RolePeer, "remote-west", func(a *trust.Authority, pub crypto.PublicKey) (trust.Chain, error) {
		return a.SignUser(pub, "remote-west", trust.PeerLife)
	})
	r.fixture = newFixture(t, func(c *Config) {
		c.CAFile = filepath.Join(t.TempDir(), "ca.crt")
		copyCA(t, r.dir.CAFile(), c.CAFile)
		c.CertFile, c.KeyFile = r.server, trust.KeyFileOf(r.server)
	})
	copyCA(t, r.dir.CAFile(), r.ca)
	r.Put(r.direct, "cilium/state/a", "1")
	return r
}

// copyCA brings a CA file to where it is read.
func copyCA(t *testing.T, from, to string) {
	t.Helper()
	certs, err := trust.ReadCertificates(from)
	if err == nil {
		err = trust.WriteCertificates(to, certs)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// weft asks once over a connection of its own, as weft does.
func (r *rotation) weft(ctx context.Context, t *testing.T) error {
	cfg := kvstore.DefaultConfig()
	cfg.Endpoints = []string{"https://" + r.address}
	cfg.CAFile, cfg.CertFile, cfg.KeyFile = r.ca, r.remote, trust.KeyFileOf(r.remote)
	c, err := kvstore.New(cfg, kvstoretest.Log(t))
	if err != nil {
		return err
	}
	defer c.Close()
	_, _, err = c.Get(ctx, "cilium/state/a")
	return err
}

// stock asks once as etcd's client does. With TLS 1.2 it learns within the handshake what the server
// says of its certificate, and a handshake that failed is an error, though the library would try again.
func (r *rotation) stock(ctx context.Context) error {
	roots, err := trust.ReadCertificates(r.ca)
	if err != nil {
		return err
	}
	config := &tls.Config{
		RootCAs: trust.Pool(roots), MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := trust.ReadPair(r.remote, trust.KeyFileOf(r.remote))
			return &pair, err
		},
	}
	once := &oneHandshake{TransportCredentials: credentials.NewTLS(config)}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + r.address}, Logger: zap.NewNop(), DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(once)},
	})
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Get(ctx, "cilium/state/a"); err != nil {
		return err
	}
	once.mu.Lock()
	defer once.mu.Unlock()
	return once.err
}

// oneHandshake keeps the first error of a handshake.
type oneHandshake struct {
	credentials.TransportCredentials

	mu  sync.Mutex
	err error
}

func (o *oneHandshake) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := o.TransportCredentials.ClientHandshake(ctx, authority, raw)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
	return conn, info, err
}

// Clone returns the same: the library clones before it dials.
func (o *oneHandshake) Clone() credentials.TransportCredentials { return o }

// load asks with several clients until ctx ends.
func (r *rotation) load(ctx context.Context, t *testing.T) (wait func()) {
	var clients sync.WaitGroup
	for i := range r.rounds {
		clients.Go(func() {
			for ctx.Err() == nil {
				limited, cancel := context.WithTimeout(ctx, 20*time.Second)
				ask := func() error { return r.weft(limited, t) }
				if i%2 == 1 {
					ask = func() error { return r.stock(limited) }
				}
				if err := ask(); err != nil && ctx.Err() == nil {
					t.Errorf("client %d: %v", i, err)
				}
				cancel()
				r.rounds[i].Add(1)
			}
		})
	}
	return clients.Wait
}

// under does one step of a rotation and waits until every client has begun a connection after it,
// and ended it.
func (r *rotation) under(t *testing.T, step string, do func() error) {
	t.Helper()
	if err := do(); err != nil {
		t.Fatalf("%s: %v", step, err)
	}
	var at [len(r.rounds)]int64
	for i := range at {
		at[i] = r.rounds[i].Load() + 2 // the one that is open has begun before
	}
	kvstoretest.Eventually(t, func() string {
		for i := range at {
			if n := r.rounds[i].Load(); n < at[i] {
				return fmt.Sprintf("%s: client %d made %d connections, want %d", step, i, n, at[i])
			}
		}
		return ""
	})
}

// TestServer_CARotatesUnderLoad changes root, cluster CA and peer CA of a server whose clients make
// one connection after another, in the order of 'weft cert rotate', without one failed request, and
// without an end of a watch that was open before. Afterwards nothing of the old ones is worth anything.
func TestServer_CARotatesUnderLoad(t *testing.T) {
	r := newRotation(t)
	stale := t.TempDir()
	for _, file := range []string{r.remote, trust.KeyFileOf(r.remote), r.ca} {
		copyFile(t, file, filepath.Join(stale, filepath.Base(file)))
	}
	pair, err := trust.ReadPair(r.remote, trust.KeyFileOf(r.remote))
	if err != nil {
		t.Fatal(err)
	}
	roots, err := trust.ReadCertificates(r.ca)
	if err != nil {
		t.Fatal(err)
	}
	watch := openWatch(t, dial(t, r.address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		RootCAs: trust.Pool(roots), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13,
	}))))
	send(t, watch, &pb.WatchCreateRequest{Key: []byte("cilium/state/a")})
	next(t, watch)

	ctx, stop := context.WithCancel(t.Context())
	wait := r.load(ctx, t)
	defer wait()
	defer stop()
	toServer := func() error { copyCA(t, r.dir.CAFile(), r.api.cfg.CAFile); return nil }
	toClients := func() error { copyCA(t, r.dir.CAFile(), r.ca); return nil }
	renew := func(file string) func() error {
		return func() error {
			done, err := r.dir.Renew(file, trust.RenewOptions{})
			if err == nil && done.Why == "" {
				err = fmt.Errorf("%s was not renewed", file)
			}
			return err
		}
	}
	r.under(t, "load", func() error { return nil })
	r.under(t, "begin", func() error { return r.dir.Begin(false) })
	r.under(t, "server trusts both", toServer)
	r.under(t, "clients trust both", toClients)
	r.under(t, "switch", r.dir.Switch)
	r.under(t, "server has the new certificate", renew(r.server))
	r.under(t, "clients have theirs", renew(r.remote))
	r.under(t, "finish", func() error { return r.dir.Finish(false) })
	r.under(t, "server trusts the new one", toServer)
	r.under(t, "clients trust the new one", toClients)
	stop()
	wait()
	t.Logf("connections of each client: %d %d %d %d", r.rounds[0].Load(), r.rounds[1].Load(), r.rounds[2].Load(), r.rounds[3].Load())

	r.Put(r.direct, "cilium/state/a", "2")
	if resp := next(t, watch); len(resp.Events) != 1 || string(resp.Events[0].Kv.Value) != "2" {
		t.Errorf("the watch that was open before got %v", resp)
	}
	// The old files, each on its own.
	remote, ca := r.remote, r.ca
	for what, old := range map[string]*rotation{
		"the old certificate": {fixture: r.fixture, remote: filepath.Join(stale, filepath.Base(remote)), ca: ca},
		"the old root":        {fixture: r.fixture, remote: remote, ca: filepath.Join(stale, filepath.Base(ca))},
	} {
		limited, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if err := old.stock(limited); err == nil {
			t.Errorf("%s is still good", what)
		}
		cancel()
	}
}

// copyFile copies a file of certificates or of a key.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
