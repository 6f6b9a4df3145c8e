// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// TestCleanup_DeviceStays: what could not be deleted keeps its programs.
func TestCleanup_DeviceStays(t *testing.T) {
	n := testLonely(t, "stays", ModeVXLAN)
	n.start()
	n.addEndpoint(1, "10.0.1.11", "", 1001)
	n.stop()
	before := n.pinnedLinks()
	cfg := CleanupConfig{BPFRoot: n.cfg.BPFRoot, NodeName: n.name, NetNS: n.cfg.NetNS}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Cleanup(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("cleanup: %v, want %v", err, context.Canceled)
	}
	if after := n.pinnedLinks(); !slices.Equal(before, after) || len(after) == 0 {
		t.Errorf("links %v, want %v", after, before)
	}
	if err := Cleanup(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if nodes, err := PinnedNodes(n.cfg.BPFRoot); err != nil || len(nodes) > 0 {
		t.Errorf("pins are left: %v %v", nodes, err)
	}
}
