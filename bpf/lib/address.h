// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* An address of either family in 16 bytes: IPv6 as it is, IPv4 as ::ffff:a.b.c.d. */
#pragma once

#include "kernel.h"

#define MAPPED htonl(0xffff)

/* Addresses in maps are bytes, in the program words. Map structures keep them at offsets that are
 * multiples of 4 and are themselves on 8 bytes.
 */
static __always_inline __u32 *words(const void *address)
{
	return (__u32 *)address;
}

static __always_inline void copy_address(void *to, const void *from)
{
	words(to)[0] = words(from)[0];
	words(to)[1] = words(from)[1];
	words(to)[2] = words(from)[2];
	words(to)[3] = words(from)[3];
}

static __always_inline bool same_address(const void *a, const void *b)
{
	return words(a)[3] == words(b)[3] && words(a)[2] == words(b)[2] && words(a)[1] == words(b)[1] && words(a)[0] == words(b)[0];
}

static __always_inline bool is_mapped(const void *a)
{
	return words(a)[0] == 0 && words(a)[1] == 0 && words(a)[2] == MAPPED;
}

/* is_link_local: fe80::/10. */
static __always_inline bool is_link_local(const void *a)
{
	return (words(a)[0] & htonl(0xffc00000)) == htonl(0xfe800000);
}

static __always_inline void set_mapped(void *to, __be32 ipv4)
{
	words(to)[0] = 0;
	words(to)[1] = 0;
	words(to)[2] = MAPPED;
	words(to)[3] = ipv4;
}

/* copy_constant copies one of the addresses of config.h, whose bytes are volatile. */
static __always_inline void copy_constant(void *to, const volatile __u8 *from)
{
	const volatile __u32 *w = (const volatile __u32 *)from;

	words(to)[0] = w[0];
	words(to)[1] = w[1];
	words(to)[2] = w[2];
	words(to)[3] = w[3];
}
