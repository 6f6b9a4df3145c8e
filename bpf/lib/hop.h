// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* Next hops, remembered for a second by the programs, so that new flows to a destination that was
 * asked for already need no route lookup.
 */
#pragma once

#include "address.h"
#include "helpers.h"
#include "ipcache.h"

struct hop {
	__u32 until; /* jiffies */
	__u32 ifindex;
	__u8 mac[6];
	__u16 mtu; /* of the route */
};
_Static_assert(sizeof(struct hop) == 16, "layout of hops");

/* Key: the destination, or the node's address in a tunnel. A row is replaced as a whole. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct address_key);
	__type(value, struct hop);
	__uint(pinning, PIN_BY_NAME);
} hops SEC(".maps");
