// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/weft-net/weft/kvstore/schema"
)

// leaseFaults are those in which a store ends what its nodes have leased.
func leaseFaults() []fault {
	return []fault{{
		name: "all leases ended while the agents were cut off", store: "east", long: true,
		breaking: func(t *trial) {
			cutOff(t)
			t.revoke()
		},
		heal: letIn,
	}}
}

// shortLease is how long the rows of nodes outlive their agents where leases are to end by themselves.
const shortLease = 15 * time.Second

// shortLeaseFaults are those in which leases end by themselves, in a lab of short ones.
func shortLeaseFaults() []fault {
	var all []fault
	for _, of := range []struct{ name, store string }{{"the agents", "east"}, {"the remote's agents", "west"}} {
		all = append(all, fault{
			name: "all leases ran out while " + of.name + " were cut off", store: of.store, long: true, leases: true,
			breaking: func(t *trial) {
				cutOff(t)
				t.waitNoNodes()
			},
			heal: letIn,
		})
	}
	return append(all, fault{
		name: "etcd frozen for longer than every lease", store: "east", long: true, leases: true,
		breaking: func(t *trial) {
			t.m.lab("kill", "-s", "STOP", "etcd/east")
			select {
			case <-time.After(2 * shortLease): // it is what is to happen, not what is waited for
			case <-t.m.t.Context().Done():
			}
		},
		heal: labs([]string{"kill", "-s", "CONT", "etcd/east"}),
	})
}

// cutOff takes the way to all stores from the nodes of the cluster, and letIn gives it back.
func cutOff(t *trial) {
	t.m.t.Helper()
	for _, n := range t.cluster.Nodes {
		t.m.lab("cut", "store/"+n.Name)
	}
}

func letIn(t *trial) {
	t.m.t.Helper()
	for _, n := range t.cluster.Nodes {
		t.m.lab("heal", "store/"+n.Name)
	}
}

// waitNoNodes waits until the leases of all nodes of the cluster have ended, and with them their rows.
func (t *trial) waitNoNodes() {
	t.m.t.Helper()
	waitFor(t.m.t, "end of all leases of "+t.cluster.Name, func() bool {
		rows, err := storeRows(t.m.t.Context(), t.m.client(t.cluster), schema.NodesPrefix)
		return err == nil && len(rows) == 0
	})
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
