// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// BenchmarkReconnect is a watch of 36,000 rows that loses its connection, until it is connected again
// and knows that nothing was missed: with a guard and without.
func BenchmarkReconnect(b *testing.B) {
	srv := kvstoretest.Start(b, kvstoretest.Options{})
	direct := srv.Client()
	srv.Fill(direct, kvstoretest.Prefix, benchRows, "x")
	for _, guarded := range []bool{false, true} {
		b.Run(fmt.Sprintf("guarded-%v", guarded), func(b *testing.B) {
			c := kvstoretest.NewClient(b, srv.ProxyConfig())
			cfg := kvstoretest.WatchConfig()
			if guarded {
				cfg.Guard = kvstore.NewGuard(c, guardConfig(), kvstoretest.Log(b))
				defer kvstoretest.Go(b, cfg.Guard.Run)()
			}
			w := kvstore.NewWatch(c, kvstoretest.Codec(), kvstoretest.Table(), cfg, kvstoretest.Log(b))
			defer kvstoretest.Go(b, w.Run)()
			resumed := func(n uint64) {
				kvstoretest.Eventually(b, func() string {
					if st := w.Status(); st.Resumes < n || !st.Connected {
						return "not connected again"
					}
					return ""
				})
			}
			resumed(0)
			for b.Loop() {
				n := w.Status().Resumes
				srv.Proxy.Cut()
				resumed(n + 1)
			}
		})
	}
}

// BenchmarkReseed writes 36,000 held rows back to a store that was wiped.
func BenchmarkReseed(b *testing.B) {
	srv := kvstoretest.Start(b, kvstoretest.Options{})
	direct := srv.Client()
	srv.Fill(direct, kvstoretest.Prefix, benchRows, "x")
	c := kvstoretest.NewClient(b, srv.ProxyConfig())
	guard := kvstore.NewGuard(c, guardConfig(), kvstoretest.Log(b))
	defer kvstoretest.Go(b, guard.Run)()
	cfg := kvstoretest.WatchConfig()
	cfg.Guard, cfg.PageSize, cfg.Silence = guard, 0, time.Minute
	table := kvstoretest.Table()
	w := kvstore.NewWatch(c, kvstoretest.Codec(), table, cfg, kvstoretest.Log(b))
	defer kvstoretest.Go(b, w.Run)()
	want := func(rows int) {
		kvstoretest.Eventually(b, func() string {
			if got := guard.Status().Hold.Rows; got != rows || table.Len() != benchRows || !w.Status().Connected {
				return fmt.Sprintf("%d of %d rows held, want %d", got, table.Len(), rows)
			}
			return ""
		})
	}
	want(0)
	for b.Loop() {
		b.StopTimer()
		srv.Wipe()
		srv.Put(direct, schema.HeartbeatKey, "now")
		want(benchRows)
		b.StartTimer()
		if n, err := guard.Reseed(b.Context()); err != nil || n != benchRows {
			b.Fatalf("%d rows written, %v", n, err)
		}
		want(0)
	}
}
