// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

// storeMembers is how many members a store has that loses some of them.
const storeMembers = "3"

// memberFaults are those of a store of three members.
func memberFaults() []fault {
	return []fault{
		{
			name: "one member of three killed", store: "east", members: true,
			breaking: labs([]string{"kill", "etcd/east"}), heal: labs([]string{"start", "etcd/east"}),
		},
		{
			name: "one member of three frozen", store: "east", members: true,
			breaking: labs([]string{"kill", "-s", "STOP", "etcd/east/3"}), heal: labs([]string{"kill", "-s", "CONT", "etcd/east/3"}),
		},
		{
			name: "two members of three killed", store: "east", members: true, before: spares(1),
			breaking: func(t *trial) {
				t.m.lab("kill", "etcd/east/2", "etcd/east/3")
				t.drop(t.spares)
				t.waitGone(t.spares, t.cluster.Nodes[0].Name)
			},
			heal: func(t *trial) {
				t.m.lab("start", "etcd/east/2", "etcd/east/3")
				t.waitGone(t.spares)
			},
		},
	}
}
