// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// benchRows is the size of a large cluster's ip table.
const benchRows = 36_000

// BenchmarkList compares page sizes with one unbounded range: small pages are quadratic.
func BenchmarkList(b *testing.B) {
	srv := kvstoretest.Start(b, kvstoretest.Options{})
	c := srv.Client()
	srv.Fill(c, kvstoretest.Prefix, benchRows, strings.Repeat("x", 244))
	b.Run("unbounded", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.Etcd().Get(b.Context(), kvstoretest.Prefix, clientv3.WithPrefix()); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, size := range []int{256, 5000, kvstore.DefaultPageSize} {
		b.Run(fmt.Sprintf("pages-of-%d", size), func(b *testing.B) {
			for b.Loop() {
				if _, err := c.List(b.Context(), kvstoretest.Prefix, kvstore.ListOptions{PageSize: size}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("watch-until-synced", func(b *testing.B) {
		for b.Loop() {
			table := kvstoretest.Table()
			w := kvstore.NewWatch(c, kvstoretest.Codec(), table, kvstore.WatchConfig{Source: kvstoretest.Source}, kvstoretest.Log(b))
			stop := kvstoretest.Go(b, w.Run)
			cursor := table.Cursor()
			for !table.Synced() {
				cursor.Next(1)
				if err := cursor.Wait(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			cursor.Close()
			stop()
		}
	})
}

// BenchmarkMissed measures how long a watch that was away needs for many missed changes: a list,
// against the replay that a gap without limit means.
func BenchmarkMissed(b *testing.B) {
	for _, gap := range []struct {
		name string
		size int64
	}{{"list", 1000}, {"replay", 1 << 40}} {
		b.Run(gap.name, func(b *testing.B) {
			srv := kvstoretest.Start(b, kvstoretest.Options{})
			direct := srv.Client()
			cfg := kvstoretest.WatchConfig()
			cfg.PageSize, cfg.Gap, cfg.Silence = 0, gap.size, time.Minute
			table := kvstoretest.Table()
			w := kvstoretest.Watch(b, kvstoretest.NewClient(b, srv.ProxyConfig()), table, cfg)
			connected := func(want bool) {
				kvstoretest.Eventually(b, func() string {
					if w.Status().Connected != want {
						return "connection"
					}
					return ""
				})
			}
			for n := 0; b.Loop(); n++ {
				b.StopTimer()
				connected(true)
				srv.Proxy.Part()
				connected(false)
				for i := range 4000 {
					srv.Put(direct, fmt.Sprintf("%s%d", kvstoretest.Prefix, i), fmt.Sprint(n))
				}
				b.StartTimer()
				srv.Proxy.Rejoin()
				last := fmt.Sprint(n)
				kvstoretest.Eventually(b, func() string {
					if r, _ := table.Get("3999"); r.Value != last {
						return "not there yet"
					}
					return ""
				})
			}
		})
	}
}

// BenchmarkChange is put → visible in the table, next to put → event of a bare watch.
func BenchmarkChange(b *testing.B) {
	srv := kvstoretest.Start(b, kvstoretest.Options{})
	c := srv.Client()
	b.Run("bare-watch", func(b *testing.B) {
		ch := srv.Client().Etcd().Watch(b.Context(), kvstoretest.Prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		<-ch
		for n := 0; b.Loop(); n++ {
			srv.Put(c, kvstoretest.Prefix+"a", fmt.Sprint(n))
			<-ch
		}
	})
	b.Run("table", func(b *testing.B) {
		table := kvstoretest.Table()
		kvstoretest.Watch(b, kvstoretest.NewClient(b, srv.ClientConfig()), table, kvstore.WatchConfig{Source: kvstoretest.Source})
		cursor := table.Cursor()
		defer cursor.Close()
		for !table.Synced() {
			cursor.Next(0)
			if err := cursor.Wait(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		for n := 0; b.Loop(); n++ {
			cursor.Next(0)
			srv.Put(c, kvstoretest.Prefix+"a", fmt.Sprintf("table %d", n))
			if err := cursor.Wait(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkPublish is 1000 changed rows until they are stored.
func BenchmarkPublish(b *testing.B) {
	srv := kvstoretest.Start(b, kvstoretest.Options{})
	c := srv.Client()
	table := kvstoretest.Table()
	s := kvstore.NewStore(c, nil, kvstoretest.Codec(), table, storeConfig(), kvstoretest.Log(b))
	kvstoretest.Go(b, s.Run)
	for n := 0; b.Loop(); n++ {
		for i := range 1000 {
			table.Put(local, 0, fmt.Sprintf("our%d", i), fmt.Sprint(n))
		}
		kvstoretest.Eventually(b, func() string {
			if st := s.Status(); st.Written < uint64(1000*(n+1)) {
				return "not written"
			}
			return ""
		})
	}
}
