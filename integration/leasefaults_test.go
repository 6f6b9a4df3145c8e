// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// leaseFaults are those in which a store ends what its nodes have leased.
func leaseFaults() []fault {
	return []fault{{
		name: "all leases ended while the agents were cut off", store: "east", long: true,
		breaking: func(t *trial) {
			for _, n := range t.cluster.Nodes {
				t.m.lab("cut", "store/"+n.Name)
			}
			t.revoke()
		},
		heal: func(t *trial) {
			for _, n := range t.cluster.Nodes {
				t.m.lab("heal", "store/"+n.Name)
			}
		},
	}}
}

// revoke ends every lease of the store, one after the other, as time does.
func (t *trial) revoke() {
	t.m.t.Helper()
	client, ctx := t.m.client(t.cluster), t.m.t.Context()
	leases, err := client.Leases(ctx)
	if err != nil {
		t.m.t.Fatal(err)
	}
	for _, l := range leases.Leases {
		// One that ran out meanwhile is what is wanted.
		if _, err := client.Revoke(ctx, l.ID); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			t.m.t.Fatal(err)
		}
	}
}
