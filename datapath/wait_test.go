// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// TestWaitEndpoint_PrefixesFull fills the map of prefixes with those of another cluster, and more
// that do not fit: a new endpoint is none of their business.
func TestWaitEndpoint_PrefixesFull(t *testing.T) {
	n := testLonely(t, "wait", ModeVXLAN)
	n.cfg.MaxPrefixes = 16
	n.start()
	const rows = 64
	key := func(i int) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(i), 0}), 24) }
	for i := range rows {
		n.tables.IPs.Put("test", 0, schema.IPKey{Cluster: "two", Prefix: key(i)}, schema.IP{HostIP: addr("192.0.2.9"), ID: 70000})
	}
	failed := func() int {
		failed := 0
		for i := range rows {
			if o, ok := n.d.IPCacheOutcome(key(i)); ok && o.Err != nil {
				failed++
			}
		}
		return failed
	}
	eventually(t, func() error {
		if failed() == 0 {
			return errors.New("no prefix has failed")
		}
		return nil
	})
	ep := n.addEndpoint(1, "10.0.1.11", "fd00:1::11", 1001)
	if failed() == 0 {
		t.Error("every prefix fits: nothing was tested")
	}
	mustRun(t, n.ns, "ping", "-c1", "-W2", ep.IPv4.String())
}

func TestAwaitOutcome_RunEnds(t *testing.T) {
	ended := make(chan struct{})
	close(ended)
	err := awaitOutcome(t.Context(), ended, func() (state.Outcome, bool) { return state.Outcome{}, false })
	if !errors.Is(err, errStopped) {
		t.Errorf("got %v, want %v", err, errStopped)
	}
}

func TestAwaitOutcome_Kinds(t *testing.T) {
	full := errors.New("full")
	for _, tt := range []struct {
		name  string
		o     state.Outcome
		found bool
		want  error
	}{
		{"done", state.Outcome{Done: true}, true, nil},
		{"failed", state.Outcome{Err: full}, true, full},
		{"another-row-is-done", state.Outcome{Done: true}, false, context.Canceled},
		{"another-row-failed", state.Outcome{Err: full}, false, context.Canceled},
		{"untried", state.Outcome{}, true, context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			err := awaitOutcome(ctx, nil, func() (state.Outcome, bool) { return tt.o, tt.found })
			if d := cmp.Diff(tt.want, err, cmpopts.EquateErrors()); d != "" {
				t.Errorf("error (-want +got):\n%s", d)
			}
		})
	}
}
