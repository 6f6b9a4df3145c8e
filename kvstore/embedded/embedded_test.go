// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/weft-net/weft/internal/loopback"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(patient{m}) }

// patient waits after the tests for the connections between members: etcd gives up the last reads of
// some only after five seconds.
type patient struct{ *testing.M }

func (p patient) Run() int {
	code := p.M.Run()
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end) && goleak.Find() != nil; {
	}
	return code
}

func dial(t *testing.T, url string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestServer_RestartKeepsData(t *testing.T) {
	ctx := t.Context()
	s, err := Start(ctx, Config{Dir: t.TempDir(), ClientURL: "http://" + loopback.Free(t), UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Kill() }()
	c := dial(t, s.Endpoint())
	defer c.Close()
	put, err := c.Put(ctx, "a", "1")
	if err != nil {
		t.Fatal(err)
	}
	for _, stop := range []struct {
		name string
		do   func()
	}{{"stop", s.Stop}, {"kill", s.Kill}} {
		t.Run(stop.name, func(t *testing.T) {
			stop.do()
			if err := s.Restart(ctx); err != nil {
				t.Fatal(err)
			}
			got, err := c.Get(ctx, "a")
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Kvs) != 1 || got.Kvs[0].ModRevision != put.Header.Revision {
				t.Fatalf("got %v, want the key as it was put", got.Kvs)
			}
		})
	}
}

func TestServer_WipedHasSameClusterID(t *testing.T) {
	ctx := t.Context()
	s, err := Start(ctx, Config{Dir: t.TempDir(), ClientURL: "http://" + loopback.Free(t), UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Kill() }()
	c := dial(t, s.Endpoint())
	defer c.Close()
	before, err := c.Put(ctx, "a", "1")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Wipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	after, err := c.Get(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if len(after.Kvs) != 0 {
		t.Fatalf("got %v after a wipe, want nothing", after.Kvs)
	}
	if after.Header.ClusterId != before.Header.ClusterId {
		t.Fatalf("cluster id %x became %x; the tests of kvstore rely on it being the same",
			before.Header.ClusterId, after.Header.ClusterId)
	}
}

func TestStart_BadConfig(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tt := range []struct {
		name, want string
		cfg        Config
	}{
		{"no-directory", "no data directory", Config{ClientURL: "http://127.0.0.1:1"}},
		{"no-url", "is not a URL", Config{Dir: t.TempDir()}},
		{"scheme", "neither http nor https", Config{Dir: t.TempDir(), ClientURL: "ftp://127.0.0.1:1"}},
		{"no-certificates", "needs a CA", Config{Dir: t.TempDir(), ClientURL: "https://127.0.0.1:1"}},
		{"taken", "address already in use", Config{Dir: t.TempDir(), ClientURL: "http://" + taken.Addr().String()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Start(context.Background(), tt.cfg)
			if err == nil {
				s.Kill()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}
