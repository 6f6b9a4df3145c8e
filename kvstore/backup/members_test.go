// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package backup_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/backup"
	"github.com/weft-net/weft/kvstore/embedded"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// TestRestore_ThreeMembers backs up a store of three while one of them is down, loses all, and makes
// three members from the one file: they are one store, and none is at fault by what another one has.
func TestRestore_ThreeMembers(t *testing.T) {
	s := kvstoretest.StartMembers(t, 3, kvstoretest.Options{})
	c := s.Client()
	epoch, err := schema.EncodeEpoch(schema.Epoch{ID: oldEpoch})
	if err != nil {
		t.Fatal(err)
	}
	put := func(c *kvstore.Client, key, value string) {
		t.Helper()
		kvstoretest.Eventually(t, func() string { // who led may be down
			if _, err := c.Put(t.Context(), key, []byte(value), 0); err != nil {
				return err.Error()
			}
			return ""
		})
	}
	put(c, schema.EpochKey, string(epoch))
	var ops []clientv3.Op
	for i := range 100 {
		ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s%03d", schema.IPsPrefix, i), "x"))
	}
	if _, err := c.Txn(t.Context()).Then(ops...).Commit(); err != nil {
		t.Fatal(err)
	}
	s.Kill(1)
	put(c, "with", "two of three")
	dir := t.TempDir()
	file := filepath.Join(dir, "weft.db")
	var saved backup.Saved
	kvstoretest.Eventually(t, func() string {
		if saved, err = backup.Save(t.Context(), c, file); err != nil {
			return err.Error()
		}
		return ""
	})
	if saved.Epoch != oldEpoch || saved.Unrecorded != "" {
		t.Errorf("saved %+v", saved)
	}
	put(c, "after", "the backup")
	s.Kill(0)
	s.Kill(2)

	var initial []string
	for i := range 3 {
		initial = append(initial, s.Member(i).Config().Name+"="+s.Member(i).Config().PeerURL)
	}
	made := make([]backup.Restored, 3)
	members := make([]*embedded.Server, 3)
	t.Cleanup(func() {
		var g errgroup.Group
		for _, m := range members {
			if m != nil {
				g.Go(func() error { m.Kill(); return nil })
			}
		}
		_ = g.Wait()
	})
	var g errgroup.Group
	for i := range 3 {
		cfg := s.Member(i).Config()
		cfg.Dir, cfg.Token = filepath.Join(dir, cfg.Name), "again"
		if made[i], err = backup.Restore(backup.RestoreConfig{
			File: file, Dir: cfg.Dir, Name: cfg.Name, PeerURL: cfg.PeerURL,
			InitialCluster: strings.Join(initial, ","), Token: cfg.Token,
		}); err != nil {
			t.Fatal(err)
		}
		g.Go(func() (err error) {
			members[i], err = embedded.Start(t.Context(), cfg)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for i, m := range made[1:] {
		if m.Epoch != made[0].Epoch || m.Revision != made[0].Revision {
			t.Errorf("member %d is %+v, the first %+v", i+1, m, made[0])
		}
	}

	fresh := kvstoretest.NewClient(t, s.ClientConfig())
	put(fresh, "in", "the new life")
	var hashes []uint32
	for i := range 3 {
		cfg := s.ClientConfig()
		cfg.Endpoints = []string{s.Member(i).Endpoint()}
		one := kvstoretest.NewClient(t, cfg)
		kvstoretest.Eventually(t, func() string {
			got, err := one.Etcd().Get(t.Context(), "", clientv3.WithFromKey(), clientv3.WithSerializable())
			if err != nil {
				return err.Error()
			}
			rows := map[string]string{}
			ips := 0
			for _, kv := range got.Kvs {
				switch key := string(kv.Key); {
				case strings.HasPrefix(key, schema.IPsPrefix):
					ips++
				default:
					rows[key] = string(kv.Value)
				}
			}
			rows[schema.EpochKey] = epochOf(rows[schema.EpochKey])
			return cmp.Diff(map[string]string{schema.EpochKey: made[0].Epoch, "with": "two of three", "in": "the new life", "ips": "100"},
				with(rows, "ips", fmt.Sprint(ips)))
		})
		h, err := one.Etcd().HashKV(t.Context(), cfg.Endpoints[0], made[0].Revision)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, h.Hash)
	}
	if hashes[0] != hashes[1] || hashes[0] != hashes[2] {
		t.Errorf("the members have %x: etcd would call one of them corrupt", hashes)
	}
}

func epochOf(value string) string {
	e, err := schema.DecodeEpoch([]byte(value))
	if err != nil {
		return err.Error()
	}
	return e.ID
}

func with(rows map[string]string, key, value string) map[string]string {
	rows[key] = value
	return rows
}
