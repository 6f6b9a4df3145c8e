// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"net/netip"
	"testing"

	"github.com/weft-net/weft/kvstore/schema"
)

func FuzzDecodeRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"id":1,"namespace":"a","name":"b","netns":"/n","interface":"eth0","addresses":["10.0.0.2"],"phase":"live"}`))
	f.Add([]byte(`{"version":1,"id":1,"addresses":["::ffff:1.2.3.4","fe80::1%eth0"],"mac":[1]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if e, err := decodeRecord(1, data); err == nil {
			_ = localRow(e)
			_ = IPRows(netip.Addr{})(schema.EndpointKey{}, endpointRow(e))
		}
	})
}
