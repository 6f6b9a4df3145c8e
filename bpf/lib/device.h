// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* The addresses of the native devices, remembered by the programs from route lookups. */
#pragma once

#include "helpers.h"

struct device {
	__u32 ifindex;
	__u8 mac[6];
	__u16 pad;
};
_Static_assert(sizeof(struct device) == 12, "layout of devices");

enum { DEVICES = 256 };

/* Index: ifindex modulo DEVICES. A row that names another device is not a hit, only slower. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DEVICES);
	__type(key, __u32);
	__type(value, struct device);
	__uint(pinning, PIN_BY_NAME);
} devices SEC(".maps");
