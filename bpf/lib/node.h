// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* The nodes of the mesh, as far as packets to them need it. */
#pragma once

#include "helpers.h"

enum node_flags {
	NODE_TUNNEL = 1 << 0, /* endpoints behind the node are reached by VXLAN */
	NODE_IPV6 = 1 << 1, /* the tunnel runs over IPv6, between the ipv6 addresses */
};

/* Row 0 is this node: the addresses that tunnel packets carry as source. */
struct node {
	__u8 ipv4[16]; /* v4-mapped; zero: has none */
	__u8 ipv6[16]; /* zero: has none */
	__u32 flags; /* enum node_flags */
	__u16 mtu; /* of the path to the node, tunnel headers included; 0: as the route says */
	__u16 pad;
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct node) == 40, "layout of nodes");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct node);
	__uint(pinning, PIN_BY_NAME);
} nodes SEC(".maps");

static __always_inline struct node *lookup_node(__u32 index)
{
	return map_lookup(&nodes, &index);
}
