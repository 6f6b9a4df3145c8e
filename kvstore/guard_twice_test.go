// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"fmt"
	"testing"

	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// TestGuard_WipedTwice: the store is lost once more in a hold, and is then lower than it was when the rows
// were first missed. What is said of it ends the hold all the same.
func TestGuard_WipedTwice(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"words", "decision"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			g := newGuarded(t, guardConfig(), 20)
			g.Proxy.Part()
			g.Wipe()
			g.Burn(g.direct, 1000)
			g.Proxy.Rejoin()
			g.wantHeld(t, 200)
			g.revive(t, 2)
			g.wantEpoch(t, 2)
			before := g.guard.Status().Generation
			g.Wipe()
			kvstoretest.Eventually(t, func() string {
				if st := g.guard.Status(); st.Generation == before || g.watch.Status().Revision > 1000 {
					return fmt.Sprintf("the second loss was not seen: %+v", st)
				}
				return ""
			})
			g.wantHeld(t, 200)
			g.wantSynced(t, false)
			g.revive(t, 3)
			g.wantEpoch(t, 3)
			g.publishAll(9, 15)
			g.wantHeld(t, 65)
			if by == "decision" {
				g.adopt(t, 65)
			} else {
				g.confirmAll(t, 10, 3)
			}
			g.wantSynced(t, true)
			g.wantEqual(t)
		})
	}
}
