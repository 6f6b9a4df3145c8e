//go:build ignore
// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* clock returns the low 32 bits of the kernel's ticks, the time of the flow table. It is run by
 * the agent and attached nowhere.
 */
#include "lib/runtime.h"

SEC("tc")
int read_clock(struct __sk_buff *skb)
{
	return (int)now();
}
