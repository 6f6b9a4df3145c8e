// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* Services: what clients address, and who answers. */
#pragma once

#include "address.h"
#include "helpers.h"

/* Port and protocol 0: the address belongs to services, and what no other row names is refused. */
struct frontend_key {
	__u8 address[16];
	__be16 port;
	__u8 protocol;
	__u8 pad;
} __attribute__((aligned(4)));
_Static_assert(sizeof(struct frontend_key) == 20, "layout of frontends");

struct frontend {
	__u32 service; /* 1..65535 */
	__u32 count; /* backends in slots 0..count-1 */
	__u32 flags; /* none defined */
};
_Static_assert(sizeof(struct frontend) == 12, "layout of frontends");

struct backend_key {
	__u32 service;
	__u32 slot;
};

struct backend {
	__u8 address[16];
	__be16 port;
	__u16 flags; /* none defined */
} __attribute__((aligned(4)));
_Static_assert(sizeof(struct backend) == 20, "layout of backends");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct frontend_key);
	__type(value, struct frontend);
	__uint(pinning, PIN_BY_NAME);
} frontends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, struct backend_key);
	__type(value, struct backend);
	__uint(pinning, PIN_BY_NAME);
} backends SEC(".maps");
