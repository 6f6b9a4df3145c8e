// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* The ports of packets in fragments: only the first one carries them. */
#pragma once

#include "helpers.h"

struct fragment_key {
	__u8 source[16];
	__u8 destination[16];
	__be32 id; /* IPv4: 16 bits, in the low half */
	__u8 protocol;
	__u8 family;
	__u16 from; /* as in flow_key */
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct fragment_key) == 40, "layout of fragments");

struct fragment {
	__be16 source_port;
	__be16 destination_port;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
	__uint(pinning, PIN_BY_NAME);
} fragments SEC(".maps");
