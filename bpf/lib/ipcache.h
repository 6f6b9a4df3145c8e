// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* Who has an address: its identity, and where its packets go. */
#pragma once

#include "address.h"
#include "helpers.h"

struct address_key {
	__u8 address[16];
};

struct prefix_key {
	__u32 length; /* bits; of IPv4 96 more: 0.0.0.0/0 is ::ffff:0:0/96 */
	__u8 address[16];
};
_Static_assert(sizeof(struct prefix_key) == 20, "layout of ipcache_prefix");

enum ipcache_flags {
	IPCACHE_HOST = 1 << 0, /* an address of this node: packets go to the host's stack */
	IPCACHE_NODE = 1 << 1, /* an address of another node */
};

struct ipcache_entry {
	__u32 identity;
	__u32 node; /* index into nodes; 0: not known, endpoints there are reached by routes */
	__u16 endpoint; /* slot, when it is an endpoint of this node; else 0 */
	__u16 flags; /* enum ipcache_flags */
};
_Static_assert(sizeof(struct ipcache_entry) == 12, "layout of ipcache");

enum identity {
	IDENTITY_UNKNOWN = 0,
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
	IDENTITY_REMOTE_NODE = 6,
};

/* is_cluster_identity tells the identity of an endpoint of some cluster from those of the world:
 * of reserved numbers, and of prefixes, which are local to a node and have a bit above the 24.
 */
static __always_inline bool is_cluster_identity(__u32 identity)
{
	return identity >= 256 && identity < 1 << 24;
}

/* Exact addresses. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 524288);
	__type(key, struct address_key);
	__type(value, struct ipcache_entry);
	__uint(pinning, PIN_BY_NAME);
} ipcache SEC(".maps");

/* Prefixes, asked when no exact row exists: a trie is three times slower. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix_key);
	__type(value, struct ipcache_entry);
	__uint(pinning, PIN_BY_NAME);
} ipcache_prefix SEC(".maps");

/* lookup_ipcache returns the row of an address, NULL when nothing is known of it. */
static __always_inline struct ipcache_entry *lookup_ipcache(const void *address)
{
	struct prefix_key key;
	struct ipcache_entry *row;

	copy_address(key.address, address);
	row = map_lookup(&ipcache, key.address);
	if (row)
		return row;
	key.length = 128;
	row = map_lookup(&ipcache_prefix, &key);
	return row;
}
