// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"os"
	"testing"

	"github.com/weft-net/weft/bpf"
)

func TestOpenMaps_Errors(t *testing.T) {
	root := testBPFRoot(t)
	p := pinsOf(root, "broken")
	if err := os.MkdirAll(p.maps(1), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, root, node string
		none             bool
	}{
		{"nothing-pinned", root, "new", true},
		{"a-map-is-missing", root, "broken", false},
		{"no-bpf-file-system", t.TempDir(), "new", false},
		{"no-directory", root + "/not-there", "new", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := OpenMaps(tt.root, tt.node)
			if err == nil {
				m.Close()
				t.Fatal("no error")
			}
			if errors.Is(err, ErrNoMaps) != tt.none {
				t.Errorf("error %v: is ErrNoMaps is %v, want %v", err, !tt.none, tt.none)
			}
		})
	}
}

// TestMaps_EndpointWithoutIdentity: a slot is in use before its identity is known.
func TestMaps_EndpointWithoutIdentity(t *testing.T) {
	n := testLonely(t, "noid", ModeNative)
	n.start()
	ep := n.addEndpoint(1, "10.0.1.11", "", 0)
	var rows []EndpointRow
	for r, err := range n.openMaps().Endpoints() {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, r)
	}
	if len(rows) != 1 || rows[0].Slot != 1 || rows[0].IPv4 != ep.IPv4 || rows[0].Identity != 0 {
		t.Errorf("rows %+v, want slot 1 with %s", rows, ep.IPv4)
	}
	n.deleteEndpoint(ep)
	var row bpf.Endpoint
	if err := n.d.engine.Load().objects.Endpoints.Lookup(uint32(1), &row); err != nil || row != (bpf.Endpoint{}) {
		t.Errorf("after deletion: %+v %v", row, err)
	}
}
