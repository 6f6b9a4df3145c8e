// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* The endpoints of this node, by slot. */
#pragma once

#include "config.h"
#include "helpers.h"

struct endpoint {
	__u32 identity; /* 0: the slot is empty */
	__u32 flags; /* none defined */
	__u8 ipv4[16]; /* v4-mapped; zero: has none */
	__u8 ipv6[16]; /* zero: has none */
	__u8 mac[6]; /* of the device inside the endpoint */
	__u16 mtu; /* of the device inside the endpoint */
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct endpoint) == 48, "layout of endpoints");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct endpoint);
	__uint(pinning, PIN_BY_NAME);
} endpoints SEC(".maps");

/* endpoint_slot returns the slot of a device, 0 when it is not an endpoint's. */
static __always_inline __u32 endpoint_slot(__u32 ifindex)
{
	__u32 slot = ifindex - endpoint_ifindex_base;

	return slot < endpoint_slots ? slot : 0;
}

static __always_inline __u32 endpoint_ifindex(__u32 slot)
{
	return endpoint_ifindex_base + slot;
}

static __always_inline struct endpoint *lookup_endpoint(__u32 slot)
{
	struct endpoint *endpoint = map_lookup(&endpoints, &slot);

	return endpoint && endpoint->identity ? endpoint : NULL;
}
