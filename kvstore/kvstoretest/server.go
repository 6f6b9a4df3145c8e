// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package kvstoretest gives tests a real etcd that they may kill, restart, wipe, compact, slow
// down and cut off, and the conformance suite of whatever serves a weft store. Only tests import
// it.
package kvstoretest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/internal/loopback"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/embedded"
)

// Options say how the server of a test runs. The zero value is an etcd without encryption.
type Options struct {
	// CA and Name make the server use TLS with a certificate of that name and ask its clients
	// for one.
	CA   *CA
	Name string
	// Guarded makes the suite's watches have a guard.
	Guarded bool
	// QuotaBytes limits the database. 0: so much that no test fills it.
	QuotaBytes int64
}

// Server is an etcd of one test, reached through a proxy that can cut or delay the connection.
// It ends with the test.
type Server struct {
	*embedded.Server
	Proxy   *Proxy
	t       testing.TB
	alive   bool
	guarded bool

	ca                        *CA    // nil without TLS
	caFile, certFile, keyFile string // of clients; "" without TLS
}

// Start runs an etcd until the test ends.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	addr := loopback.Free(t)
	cfg := embedded.Config{
		Dir:           filepath.Join(t.TempDir(), "etcd"),
		ClientURL:     "http://" + addr,
		UnsafeNoFsync: true,
		QuotaBytes:    opts.QuotaBytes,
	}
	if opts.CA != nil {
		cfg.ClientURL = "https://" + addr
		cfg.CAFile = opts.CA.File
		cfg.CertFile, cfg.KeyFile = opts.CA.Issue(t, opts.Name, time.Hour)
	}
	e, err := embedded.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Server: e, t: t, alive: true, guarded: opts.Guarded}
	if opts.CA != nil {
		s.ca, s.caFile = opts.CA, opts.CA.File
		s.certFile, s.keyFile = opts.CA.issue(t, kvstore.UserRoot, opts.Name+"-client", time.Hour)
	}
	s.Proxy = newProxy(t, addr)
	t.Cleanup(func() {
		if s.alive {
			s.Server.Kill()
		}
	})
	return s
}

// ClientConfig reaches the server directly, with TLS as the user root.
func (s *Server) ClientConfig() kvstore.Config {
	cfg := kvstore.DefaultConfig()
	cfg.Endpoints = []string{s.Endpoint()}
	cfg.CAFile, cfg.CertFile, cfg.KeyFile = s.caFile, s.certFile, s.keyFile
	return cfg
}

// ProxyConfig reaches the server through the proxy.
func (s *Server) ProxyConfig() kvstore.Config {
	cfg := s.ClientConfig()
	scheme := "http://"
	if s.caFile != "" {
		scheme = "https://"
	}
	cfg.Endpoints = []string{scheme + s.Proxy.Addr()}
	return cfg
}

// UserConfig reaches the server directly with a new certificate of a user. The server must have a CA.
func (s *Server) UserConfig(user string) kvstore.Config {
	s.t.Helper()
	cfg := s.ClientConfig()
	cfg.CertFile, cfg.KeyFile = s.ca.Issue(s.t, user, time.Hour)
	return cfg
}

// ClientAs returns a client with a new certificate of a user. It ends with the test.
func (s *Server) ClientAs(user string) *kvstore.Client {
	s.t.Helper()
	return NewClient(s.t, s.UserConfig(user))
}

// Client returns a client that ends with the test.
func (s *Server) Client() *kvstore.Client { return NewClient(s.t, s.ClientConfig()) }

// NewClient returns a client that ends with the test.
func NewClient(t testing.TB, cfg kvstore.Config) *kvstore.Client {
	t.Helper()
	c, err := kvstore.New(cfg, Log(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Log writes to the test's output.
func Log(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// Kill cuts all connections and stops the server.
func (s *Server) Kill() {
	s.alive = false
	s.Server.Kill()
}

// Restart starts the server again on its data and port.
func (s *Server) Restart() {
	s.t.Helper()
	if err := s.Server.Restart(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	s.alive = true
}

// Wipe kills the server, removes its data and starts it again with the same settings: the
// cluster id is the same, everything else is gone.
func (s *Server) Wipe() {
	s.t.Helper()
	s.alive = false
	if err := s.Server.Wipe(); err != nil {
		s.t.Fatal(err)
	}
	s.Restart()
}

// Save copies the data of the server into a directory that is not there yet, and starts it again.
func (s *Server) Save(dir string) {
	s.t.Helper()
	s.Kill()
	if err := os.CopyFS(dir, os.DirFS(s.Config().Dir)); err != nil {
		s.t.Fatal(err)
	}
	s.Restart()
}

// RollBack makes the server go on with the data that Save copied.
func (s *Server) RollBack(dir string) {
	s.t.Helper()
	s.Kill()
	if err := os.RemoveAll(s.Config().Dir); err != nil {
		s.t.Fatal(err)
	}
	if err := os.CopyFS(s.Config().Dir, os.DirFS(dir)); err != nil {
		s.t.Fatal(err)
	}
	s.Restart()
}

// Put writes a key and returns the revision.
func (s *Server) Put(c *kvstore.Client, key, value string) (revision int64) {
	s.t.Helper()
	s.again(func() (err error) {
		revision, err = c.Put(s.t.Context(), key, []byte(value), 0)
		return err
	})
	return revision
}

// Delete removes a key.
func (s *Server) Delete(c *kvstore.Client, key string) {
	s.t.Helper()
	s.again(func() error {
		_, err := c.Delete(s.t.Context(), key)
		return err
	})
}

// Commit does operations in one transaction.
func (s *Server) Commit(c *kvstore.Client, ops ...clientv3.Op) {
	s.t.Helper()
	s.again(func() error {
		_, err := c.Txn(s.t.Context()).Then(ops...).Commit()
		return err
	})
}

// Fill writes n keys prefix+number, a hundred in a transaction.
func (s *Server) Fill(c *kvstore.Client, prefix string, n int, value string) {
	s.t.Helper()
	for i := 0; i < n; {
		var ops []clientv3.Op
		for ; i < n && len(ops) < 100; i++ {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s%06d", prefix, i), value))
		}
		s.Commit(c, ops...)
	}
}

// Burn raises the revision by n without touching any key that a test looks at.
func (s *Server) Burn(c *kvstore.Client, n int) {
	s.t.Helper()
	for range n {
		s.Put(c, "burn", "x")
	}
}

// Compact forgets the history before the newest revision.
func (s *Server) Compact(c *kvstore.Client) {
	s.t.Helper()
	rev := s.Put(c, "burn", "x")
	s.again(func() error {
		_, err := c.Etcd().Compact(s.t.Context(), rev, clientv3.WithCompactPhysical())
		if errors.Is(err, rpctypes.ErrCompacted) {
			return nil // by an attempt that had no answer
		}
		return err
	})
}

// again makes a request until the connection lets it: a client may notice only by it that the
// server was killed and started again.
func (s *Server) again(request func() error) {
	s.t.Helper()
	for tries := 1; ; tries++ {
		err := request()
		if err == nil {
			return
		}
		if code := status.Code(err); tries == 10 || code != codes.Unavailable && !errors.As(err, new(*kvstore.EndpointError)) {
			s.t.Fatal(err)
		}
	}
}

// Eventually waits until ok returns "", and fails the test with what it returned last.
func Eventually(t testing.TB, ok func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		last := ok()
		if last == "" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("still not as wanted: %s", last)
		case <-tick.C:
		}
	}
}

// Go runs a component until the test ends or the returned function is called, which waits for
// it. An error that is not the end of its context fails the test.
func Go(t testing.TB, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil && ctx.Err() == nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}
