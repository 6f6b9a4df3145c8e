// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"testing"
)

// FuzzDecodeEvent gives the decoder bytes of any length.
func FuzzDecodeEvent(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 112))
	f.Fuzz(func(t *testing.T, raw []byte) {
		ev, err := decodeEvent(raw, bootTime())
		if err != nil && len(raw) >= 112 {
			t.Error(err)
		}
		_ = fmt.Sprint(ev.Kind, ev.Reason, ev.Source, ev.Backend)
	})
}
