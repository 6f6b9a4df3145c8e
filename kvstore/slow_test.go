// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"testing"
	"time"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// TestStore_SlowServer: a store that takes its time is no store that is away. Rows are published and
// followed, on the lease and the watch that were there before.
func TestStore_SlowServer(t *testing.T) {
	t.Parallel()
	f := newStore(t, true, storeConfig(), nil)
	follower := kvstoretest.Table()
	w := kvstoretest.Watch(t, kvstoretest.NewClient(t, f.ProxyConfig()), follower, kvstoretest.WatchConfig())
	f.set("our1", "1")
	kvstoretest.WantRows(t, follower, map[string]string{"our1": "1"})
	before := lease(t, f.sess)

	f.Proxy.Slow(50 * time.Millisecond)
	f.set("our2", "2")
	f.set("our1", "3")
	want := map[string]string{"our1": "3", "our2": "2"}
	kvstoretest.WantStored(t, f.direct, want)
	kvstoretest.WantRows(t, follower, want)
	f.wantIdle(t)
	if now := lease(t, f.sess); now != before {
		t.Errorf("lease %+v, want the one before, %+v", now, before)
	}
	if st := w.Status(); !st.Synced || !st.Connected || st.Lists != 1 || st.Continuity != kvstore.ContinuityFirst {
		t.Errorf("the watch began again: %+v", st)
	}
}
