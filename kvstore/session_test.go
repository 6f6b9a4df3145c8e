// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"testing"
	"time"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// session runs a session with short times until the test ends.
func session(t *testing.T, c *kvstore.Client, cfg kvstore.SessionConfig) (s *kvstore.Session, stop func()) {
	t.Helper()
	cfg.MinBackoff, cfg.MaxBackoff = time.Millisecond, 50*time.Millisecond
	s = kvstore.NewSession(c, cfg, kvstoretest.Log(t))
	return s, kvstoretest.Go(t, s.Run)
}

func lease(t *testing.T, s *kvstore.Session) kvstore.Lease {
	t.Helper()
	l, err := s.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func wantGeneration(t *testing.T, s *kvstore.Session, want uint64) kvstore.Lease {
	t.Helper()
	kvstoretest.Eventually(t, func() string {
		if l, _ := s.Current(); l.Generation != want {
			return "generation is not the wanted one"
		}
		return ""
	})
	return lease(t, s)
}

func TestSession_NewLeaseAfterLoss(t *testing.T) {
	t.Parallel()
	srv := plain(t)
	direct := srv.Client()
	s, _ := session(t, kvstoretest.NewClient(t, srv.ProxyConfig()), kvstore.SessionConfig{Refresh: 20 * time.Millisecond})
	first := wantGeneration(t, s, 1)
	if ttl, err := direct.Etcd().TimeToLive(t.Context(), first.ID); err != nil || ttl.GrantedTTL != 900 {
		t.Fatalf("got %v, %v; want a TTL of 900 s", ttl, err)
	}

	if _, err := direct.Etcd().Revoke(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	second := wantGeneration(t, s, 2)
	if second.ID == first.ID {
		t.Fatal("the lease is the revoked one")
	}

	srv.Wipe()
	wantGeneration(t, s, 3)

	// A lost connection is no lost lease.
	srv.Kill()
	kvstoretest.Eventually(t, func() string {
		if s.Status().LastError == nil {
			return "no error"
		}
		return ""
	})
	srv.Restart()
	kvstoretest.Eventually(t, func() string {
		if s.Status().LastError != nil {
			return "still an error"
		}
		return ""
	})
	wantGeneration(t, s, 3)

	// Who finds the lease lost says so, and does not wait for the next refresh.
	s.Lost(2)
	wantGeneration(t, s, 3)
	s.Lost(3)
	wantGeneration(t, s, 4)
}

func TestSession_Revoke(t *testing.T) {
	t.Parallel()
	srv := plain(t)
	c := srv.Client()
	for _, revoke := range []bool{false, true} {
		s, stop := session(t, c, kvstore.SessionConfig{Revoke: revoke})
		l := lease(t, s)
		if _, err := c.Put(t.Context(), "a", []byte("1"), l.ID); err != nil {
			t.Fatal(err)
		}
		stop()
		if _, ok, err := c.Get(t.Context(), "a"); err != nil || ok == revoke {
			t.Fatalf("revoke %v: the key exists: %v (%v)", revoke, ok, err)
		}
	}
}
