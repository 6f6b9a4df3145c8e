// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"errors"
	"fmt"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

func TestStore_FencedWritesNothing(t *testing.T) {
	t.Parallel()
	cfg := storeConfig()
	cfg.Fence = []clientv3.Cmp{clientv3.Compare(clientv3.Version("term"), "=", 1)}
	f := newStore(t, false, cfg, func(f *storeFixture) {
		f.Put(f.direct, kvstoretest.Prefix+"our-old", "of an earlier life")
	})
	f.set("our1", "1")
	f.table.MarkSynced(local)
	fenced := func() string {
		if st := f.store.Status(); !errors.Is(st.LastError, kvstore.ErrFenced) {
			return fmt.Sprintf("%+v, want it fenced", st)
		}
		return ""
	}
	kvstoretest.Eventually(t, fenced)
	want := []string{"our-old"}
	there := func() string {
		l, err := f.direct.List(t.Context(), kvstoretest.Prefix, kvstore.ListOptions{KeysOnly: true})
		if err != nil {
			return err.Error()
		}
		var got []string
		for _, kv := range l.KVs {
			got = append(got, kv.Key[len(kvstoretest.Prefix):])
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Sprintf("%v stand, want %v", got, want)
		}
		return ""
	}
	if s := there(); s != "" {
		t.Fatal(s)
	}
	f.Put(f.direct, "term", "ours")
	want = []string{"our1"}
	kvstoretest.Eventually(t, there)
	f.wantIdle(t)

	f.Put(f.direct, "term", "somebody else's")
	f.table.Delete(local, 0, "our1")
	kvstoretest.Eventually(t, fenced)
	if s := there(); s != "" {
		t.Fatal(s)
	}
}
