// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"testing"
	"time"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// TestPause_EndsWithTheConnectionsReturn has pauses that outlast the test: whatever works again after
// a store was away does so because the connection came back.
func TestPause_EndsWithTheConnectionsReturn(t *testing.T) {
	t.Parallel()
	srv := kvstoretest.Start(t, kvstoretest.Options{})
	direct := srv.Client()
	ccfg := srv.ProxyConfig()
	ccfg.RequestTimeout, ccfg.DialTimeout = time.Second, time.Second
	c := kvstoretest.NewClient(t, ccfg)

	session := kvstore.NewSession(c, kvstore.SessionConfig{
		TTL: time.Hour, Refresh: 20 * time.Millisecond, MinBackoff: time.Hour, MaxBackoff: time.Hour,
	}, kvstoretest.Log(t))
	kvstoretest.Go(t, session.Run)
	mirrored := kvstoretest.Table()
	cfg := kvstoretest.WatchConfig()
	cfg.MinBackoff, cfg.MaxBackoff = time.Hour, time.Hour
	watch := kvstore.NewWatch(c, kvstoretest.Codec(), mirrored, cfg, kvstoretest.Log(t))
	published := kvstoretest.Table()
	store := kvstore.NewStore(c, session, kvstoretest.Codec(), published, kvstore.StoreConfig[string, string]{
		Feed: watch, MinBackoff: time.Hour, MaxBackoff: time.Hour,
	}, kvstoretest.Log(t))
	kvstoretest.Go(t, store.Run)
	kvstoretest.Go(t, watch.Run)
	want := func(value string) {
		t.Helper()
		published.Put("test", 0, "row", value)
		kvstoretest.Eventually(t, func() string {
			if r, _ := mirrored.Get("row"); r.Value != value {
				return "the row is not stored and read again"
			}
			return ""
		})
	}
	want("before")

	srv.Proxy.Part()
	kvstoretest.Eventually(t, func() string {
		switch {
		case watch.Status().LastError == nil:
			return "the watch has noticed nothing"
		case session.Status().LastError == nil:
			return "the session has noticed nothing"
		}
		return ""
	})
	published.Put("test", 0, "row", "lost")
	kvstoretest.Eventually(t, func() string {
		if store.Status().LastError == nil {
			return "the store has noticed nothing"
		}
		return ""
	})
	srv.Put(direct, kvstoretest.Prefix+"other", "news")
	srv.Proxy.Rejoin()
	kvstoretest.Eventually(t, func() string {
		switch r, _ := mirrored.Get("other"); {
		case r.Value != "news":
			return "the watch still pauses"
		case session.Status().LastError != nil:
			return "the session still pauses"
		}
		return ""
	})
	want("after")
}
