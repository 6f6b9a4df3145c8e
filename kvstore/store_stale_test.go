// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// TestStore_StaleWhenAllIsTaken: a row of an earlier life is deleted when the table is synced without it, not
// when it has come with the mark and is not taken over yet.
func TestStore_StaleWhenAllIsTaken(t *testing.T) {
	t.Parallel()
	c, codec := newJudged(t), schema.VIPs()
	wanted, dropped := netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("10.96.0.2")
	row := schema.VIP{Namespace: "default", Name: "web"}
	table := state.NewTable[netip.Addr]("t", state.Equal[schema.VIP])
	table.Expect("disk")
	cursor := table.Cursor()
	defer cursor.Close()
	s := NewStore(c, nil, codec, table, StoreConfig[netip.Addr, schema.VIP]{}, slog.New(slog.DiscardHandler))
	for _, a := range []netip.Addr{wanted, dropped} {
		key := codec.Prefix + codec.FormatKey(a)
		value, err := codec.Encode(a, row)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.etcd.Put(t.Context(), key, string(value))
		if err != nil {
			t.Fatal(err)
		}
		s.stale[key] = KV{Key: key, Value: value, ModRevision: resp.Header.Revision}
	}
	stored := func(what string, a netip.Addr, want bool) {
		t.Helper()
		if _, ok, err := c.Get(t.Context(), codec.Prefix+codec.FormatKey(a)); ok != want || err != nil {
			t.Errorf("%s: %s is stored: %v (%v), want %v", what, a, ok, err, want)
		}
	}
	s.takeChanges(cursor)
	table.Put("disk", 0, wanted, row)
	table.MarkSynced("disk")
	s.flush(t.Context(), Lease{}, cursor.Synced())
	stored("before it is taken over", wanted, true)
	stored("before all is taken over", dropped, true)

	s.takeChanges(cursor)
	delete(s.stale, codec.Prefix+codec.FormatKey(wanted)) // as its list does, of a row that is wanted
	for more := true; more; {
		_, more = s.flush(t.Context(), Lease{}, cursor.Synced())
	}
	stored("afterwards", wanted, true)
	stored("afterwards", dropped, false)
}
