// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// secure is a server with TLS and the settings of a client with a certificate of a name.
func secure(t *testing.T, ca *kvstoretest.CA, user string) (*kvstoretest.Server, kvstore.Config) {
	t.Helper()
	srv := kvstoretest.Start(t, kvstoretest.Options{CA: ca, Name: "server"})
	return srv, srv.UserConfig(user)
}

// rooted is a server with TLS and a client of it as the user root.
func rooted(t *testing.T) (*kvstoretest.Server, *kvstore.Client) {
	t.Helper()
	srv, cfg := secure(t, kvstoretest.NewCA(t, "ours"), kvstore.UserRoot)
	return srv, kvstoretest.NewClient(t, cfg)
}

// wantReason makes requests until one fails with the reason, which must not need the timeout.
func wantReason(t *testing.T, cfg kvstore.Config, want kvstore.Reason, text string) {
	t.Helper()
	cfg.RequestTimeout = 300 * time.Millisecond
	c := kvstoretest.NewClient(t, cfg)
	kvstoretest.Eventually(t, func() string {
		_, _, err := c.Get(t.Context(), "a")
		var e *kvstore.EndpointError
		if !errors.As(err, &e) || e.Reason != want || !strings.Contains(err.Error(), text) {
			return "error is " + errorText(err)
		}
		if !strings.Contains(err.Error(), cfg.Endpoints[0]) {
			return "the endpoint is not named: " + errorText(err)
		}
		return ""
	})
}

func errorText(err error) string {
	if err == nil {
		return "nil"
	}
	return err.Error()
}

func TestClient_SaysWhyNot(t *testing.T) {
	t.Parallel()
	ca, other := kvstoretest.NewCA(t, "ours"), kvstoretest.NewCA(t, "theirs")
	srv, good := secure(t, ca, "node-a1")
	c := kvstoretest.NewClient(t, good)
	srv.Put(c, "a", "1")

	t.Run("unreachable", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		cfg := good
		cfg.Endpoints = []string{"https://" + l.Addr().String()}
		wantReason(t, cfg, kvstore.ReasonUnreachable, "connection refused")
	})
	t.Run("silent", func(t *testing.T) {
		cfg := good
		cfg.Endpoints = srv.ProxyConfig().Endpoints
		cfg.RequestTimeout = 100 * time.Millisecond
		c := kvstoretest.NewClient(t, cfg)
		kvstoretest.Eventually(t, func() string {
			if _, _, err := c.Get(t.Context(), "a"); err != nil {
				return err.Error()
			}
			return ""
		})
		srv.Proxy.Freeze()
		defer srv.Proxy.Thaw()
		_, _, err := c.Get(t.Context(), "a")
		var e *kvstore.EndpointError
		if !errors.As(err, &e) || e.Reason != kvstore.ReasonSilent {
			t.Fatalf("got %v, want one that says silent", err)
		}
	})
	t.Run("our-certificate-expired", func(t *testing.T) {
		cfg := good
		cfg.CertFile, cfg.KeyFile = ca.Issue(t, "expired", -time.Minute)
		wantReason(t, cfg, kvstore.ReasonClientExpired, "expired.crt")
	})
	t.Run("our-certificate-of-another-ca", func(t *testing.T) {
		cfg := good
		cfg.CertFile, cfg.KeyFile = other.Issue(t, "node-a1", time.Hour)
		wantReason(t, cfg, kvstore.ReasonClientCA, "")
	})
	t.Run("no-certificate", func(t *testing.T) {
		cfg := good
		cfg.CertFile, cfg.KeyFile = "", ""
		wantReason(t, cfg, kvstore.ReasonClientCertificate, "certificate required")
	})
	t.Run("server-of-another-ca", func(t *testing.T) {
		cfg := good
		cfg.CAFile = other.File
		wantReason(t, cfg, kvstore.ReasonServerCA, "unknown authority")
	})
	t.Run("server-of-another-name", func(t *testing.T) {
		cfg := good
		_, port, err := net.SplitHostPort(strings.TrimPrefix(srv.Endpoint(), "https://"))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Endpoints = []string{"https://c3.mesh.example:" + port}
		cfg.HostAliases = map[string][]netip.Addr{"c3.mesh.example": {netip.MustParseAddr("127.0.0.1")}}
		wantReason(t, cfg, kvstore.ReasonServerName, "c3.mesh.example")
	})
	t.Run("server-of-another-address", func(t *testing.T) {
		cfg := good
		cfg.Endpoints = []string{"https://" + forward(t, "127.0.0.2:0", strings.TrimPrefix(srv.Endpoint(), "https://"))}
		wantReason(t, cfg, kvstore.ReasonServerName, "127.0.0.2")
	})
	t.Run("missing-file", func(t *testing.T) {
		cfg := good
		cfg.CertFile += ".missing"
		wantReason(t, cfg, kvstore.ReasonFiles, "no such file")
		cfg = good
		cfg.CAFile += ".missing"
		wantReason(t, cfg, kvstore.ReasonFiles, "no such file")
	})
	t.Run("empty-ca", func(t *testing.T) {
		cfg := good
		cfg.CAFile = t.TempDir() + "/empty.crt"
		if err := os.WriteFile(cfg.CAFile, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		wantReason(t, cfg, kvstore.ReasonFiles, "holds no certificate")
	})
}

func TestClient_ServerCertificateExpired(t *testing.T) {
	t.Parallel()
	ca := kvstoretest.NewCA(t, "ours")
	srv, cfg := secure(t, ca, "node-a1")
	ca.Issue(t, "server", -time.Minute) // etcd reads it at the next handshake
	wantReason(t, cfg, kvstore.ReasonServerExpired, "")
	ca.Issue(t, "server", time.Hour)
	srv.Put(kvstoretest.NewClient(t, cfg), "a", "1")
}

// A client whose certificates and CA are exchanged under it goes on with the next connection.
func TestClient_RotatedCertificates(t *testing.T) {
	t.Parallel()
	ca, next := kvstoretest.NewCA(t, "old"), kvstoretest.NewCA(t, "new")
	srv, cfg := secure(t, ca, "node-a1")
	cfg.RequestTimeout = 300 * time.Millisecond
	ca.Issue(t, "node-a1", -time.Minute)
	c := kvstoretest.NewClient(t, cfg)
	if _, _, err := c.Get(t.Context(), "a"); err == nil {
		t.Fatal("an expired certificate was accepted")
	}
	ca.Issue(t, "node-a1", time.Hour)
	works := func() string {
		_, _, err := c.Get(t.Context(), "a")
		if err != nil {
			return err.Error()
		}
		return ""
	}
	kvstoretest.Eventually(t, works)

	// Both sides move to a new CA: the same paths hold other files.
	srv.Kill()
	server := srv.Config()
	serverCert, serverKey := next.Issue(t, "server", time.Hour)
	clientCert, clientKey := next.Issue(t, "node-a1", time.Hour)
	for from, to := range map[string]string{
		next.File: ca.File, serverCert: server.CertFile, serverKey: server.KeyFile, clientCert: cfg.CertFile, clientKey: cfg.KeyFile,
	} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	srv.Restart()
	kvstoretest.Eventually(t, works)
}

func TestClient_Limits(t *testing.T) {
	t.Parallel()
	srv := plain(t)
	cfg := srv.ClientConfig()
	cfg.QPS, cfg.Burst = 0.001, 2
	c := kvstoretest.NewClient(t, cfg)
	for range 2 {
		if _, _, err := c.Get(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := c.Get(ctx, "a"); err == nil {
		t.Fatal("a third request in the same second went through")
	}
}

func TestClient_Verbs(t *testing.T) {
	t.Parallel()
	srv := plain(t)
	c := srv.Client()
	ctx := t.Context()
	if _, ok, err := c.Get(ctx, "a"); ok || err != nil {
		t.Fatalf("got %v, %v for a key that is not there", ok, err)
	}
	rev := srv.Put(c, "a", "1")
	kv, ok, err := c.Get(ctx, "a")
	if err != nil || !ok || string(kv.Value) != "1" || kv.ModRevision != rev || kv.CreateRevision != rev {
		t.Fatalf("got %+v, %v, %v", kv, ok, err)
	}
	resp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Version("a"), "=", 0)).
		Then(clientv3.OpPut("a", "2")).Else(clientv3.OpGet("a")).Commit()
	if err != nil || resp.Succeeded || len(resp.Responses) != 1 {
		t.Fatalf("got %v, %v", resp, err)
	}
	srv.Fill(c, "p/", 25, "x")
	for _, size := range []int{0, 1, 7, 25} {
		l, err := c.List(ctx, "p/", kvstore.ListOptions{PageSize: size})
		if err != nil || len(l.KVs) != 25 || l.KVs[24].Key != "p/000024" {
			t.Fatalf("page size %d: %d keys, %v", size, len(l.KVs), err)
		}
	}
	if l, err := c.List(ctx, "p/", kvstore.ListOptions{Revision: rev}); err != nil || len(l.KVs) != 0 || l.Revision != rev {
		t.Fatalf("at an old revision: %+v, %v", l, err)
	}
	if ok, err := c.Delete(ctx, "a"); !ok || err != nil {
		t.Fatalf("delete: %v, %v", ok, err)
	}
	if ok, err := c.Delete(ctx, "a"); ok || err != nil {
		t.Fatalf("delete again: %v, %v", ok, err)
	}
	if st, err := c.Status(ctx); err != nil || st.Header.ClusterId == 0 {
		t.Fatalf("status: %v, %v", st, err)
	}
}

// forward lets a server be reached under another address until the test ends.
func forward(t *testing.T, listen, to string) string {
	t.Helper()
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		wait.Wait()
	})
	wait.Go(func() {
		for {
			from, err := ln.Accept()
			if err != nil {
				return
			}
			back, err := net.Dial("tcp", to)
			if err != nil {
				from.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{from, back}, {back, from}} {
				wait.Go(func() {
					io.Copy(way[0], way[1]) //nolint:errcheck // either end may leave
					way[0].Close()
					way[1].Close()
				})
			}
		}
	})
	return ln.Addr().String()
}
