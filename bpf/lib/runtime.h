// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* What the agent changes while packets flow. */
#pragma once

#include "helpers.h"

/* Raised after every change of rows that decisions depend on. A program reads it before it looks
 * anything up and stores what it read: a change in between makes an entry stale, never wrong.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, PIN_BY_NAME);
} generation SEC(".maps");

struct settings {
	__u32 pressure; /* not 0: connections begin in flows_young */
	__u32 young; /* not 0: flows_young may hold entries; set by programs, cleared by the agent */
};
_Static_assert(sizeof(struct settings) == 8, "layout of runtime");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
	__uint(pinning, PIN_BY_NAME);
} runtime SEC(".maps");

static __always_inline __u32 read_generation(void)
{
	__u32 zero = 0;
	volatile __u32 *g = map_lookup(&generation, &zero);

	return g ? *g : 0;
}

static __always_inline struct settings *read_settings(void)
{
	__u32 zero = 0;

	return map_lookup(&runtime, &zero);
}

/* now returns the low 32 bits of the kernel's tick counter. */
static __always_inline __u32 now(void)
{
	return (__u32)jiffies64();
}
