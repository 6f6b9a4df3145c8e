// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// The mark that the mirror has synced is met, whenever it is set: also together with the last change, when
// nothing comes after it.
func TestKnownNumbers_MarkIsNotMissed(t *testing.T) {
	key := schema.IdentityKey{Cluster: "c3", ID: 200000}
	for i := range 5000 {
		table := state.NewTable[schema.IdentityKey]("t", state.Equal[string])
		table.Expect("etcd")
		k := newKnownNumbers(Config{Cluster: "c3", ClusterID: 3}, table)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- k.follow(ctx, func(state.Change[schema.IdentityKey, string]) {})
		}()
		table.Put("etcd", 1, key, "labels")
		table.MarkSynced("etcd")
		select {
		case <-k.synced:
		case <-time.After(time.Minute):
			t.Fatalf("the mark was missed the %dth time", i)
		}
		if got := k.of("labels"); got != ID(key.ID) {
			t.Fatalf("synced without the number: %d", uint32(got))
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
}
