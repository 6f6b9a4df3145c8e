// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestGolden_Mirror(t *testing.T) {
	at := func(minute, second int) time.Time { return time.Date(2026, 1, 2, 15, minute, second, 0, time.UTC) }
	t.Run("connected", func(t *testing.T) {
		m := Mirror{
			ID: 3, Connected: true, Confirmed: at(4, 3), Heartbeat: at(3, 41), Written: at(4, 5), By: "east-1",
			Epoch: "00112233445566778899aabbccddeeff", Rows: 12, Complete: true,
		}
		golden(t, Mirrors(), "weft/v1/mirror/c3", "mirror/c3.json", m, m)
		// The same bytes are the word of an owner.
		o, err := Owners().Decode("c3", readGolden(t, "mirror/c3.json"))
		if err != nil || o.Epoch != m.Epoch || o.Rows != m.Rows || !o.Complete {
			t.Errorf("as an owners' row %+v, %v", o, err)
		}
	})
	t.Run("certificates", func(t *testing.T) {
		m := Mirror{
			ID: 3, Connected: true, Confirmed: at(4, 3), Written: at(4, 5), By: "east-1", Rows: 12, Complete: true,
			OurCertificate:    time.Date(2026, 12, 24, 10, 0, 0, 0, time.UTC),
			ServerCertificate: time.Date(2026, 2, 1, 10, 0, 0, 0, time.UTC),
		}
		golden(t, Mirrors(), "weft/v1/mirror/c3", "mirror/c3-certificates.json", m, m)
	})
	t.Run("removed", func(t *testing.T) {
		m := Mirror{
			ID: 3, Reason: "endpoint https://c3.mesh.example:32379: unreachable", Confirmed: at(4, 3), Written: at(14, 5), By: "east-2",
			Removed: at(13, 0), Rows: 12,
		}
		golden(t, Mirrors(), "weft/v1/mirror/c3", "mirror/c3-removed.json", m, m)
	})
	t.Run("forget", func(t *testing.T) {
		f := Forget{By: "root@n1", At: at(4, 5)}
		golden(t, Forgets(), "weft/v1/forget/c3", "forget/c3.json", f, f)
	})
	t.Run("endpoint-slice", func(t *testing.T) {
		text := string(readGolden(t, "endpointslices/web-1.bin"))
		golden(t, EndpointSlices(c3), "cilium/state/endpointslices/v1/c3/default/web-1", "endpointslices/web-1.bin", text, text)
		if _, err := EndpointSlices(c3).Decode(ServiceKey{}, []byte("{}")); err == nil {
			t.Error("JSON is taken for a packed endpoint slice")
		}
	})
}

// The copy of a row stands where readers of the cached layout look for it.
func TestMirrorPrefix(t *testing.T) {
	cached := c3
	cached.Cached = true
	got := map[Resource]string{}
	for _, r := range []Resource{ResourceNodes, ResourceIPs, ResourceIdentities, ResourceServices, ResourceEndpointSlices} {
		got[r] = MirrorPrefix("c3", r)
	}
	if diff := cmp.Diff(map[Resource]string{
		ResourceNodes: Nodes(cached).Prefix, ResourceIPs: IPs(cached).Prefix, ResourceIdentities: Identities(cached).Prefix,
		ResourceServices: Services(cached).Prefix, ResourceEndpointSlices: "cilium/cache/endpointslices/v1/c3/",
	}, got); diff != "" {
		t.Errorf("prefixes (-want +got):\n%s", diff)
	}
}
