// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* The kernel's helper functions that weft calls, by their number. */
#pragma once

#include "kernel.h"

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*const map_delete)(void *map, const void *key) = (void *)3;
static __u32 (*const random_u32)(void) = (void *)7;
static long (*const skb_store)(struct __sk_buff *skb, __u32 offset, const void *from, __u32 len, __u64 flags) = (void *)9;
static long (*const l4_csum_replace)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags) = (void *)11;
static long (*const skb_get_tunnel_key)(struct __sk_buff *skb, struct tunnel_key *key, __u32 size, __u64 flags) = (void *)20;
static long (*const redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*const skb_load)(const void *skb, __u32 offset, void *to, __u32 len) = (void *)26;
static __s64 (*const csum_diff)(const void *from, __u32 from_size, const void *to, __u32 to_size, __u32 seed) = (void *)28;
static long (*const skb_change_type)(struct __sk_buff *skb, __u32 type) = (void *)32;
static long (*const skb_change_tail)(struct __sk_buff *skb, __u32 len, __u64 flags) = (void *)38;
static long (*const skb_pull_data)(struct __sk_buff *skb, __u32 len) = (void *)39;
static __u64 (*const socket_cookie)(void *ctx) = (void *)46;
static long (*const skb_adjust_room)(struct __sk_buff *skb, __s32 diff, __u32 mode, __u64 flags) = (void *)50;
static long (*const fib_lookup)(void *skb, struct fib_lookup *params, __s32 size, __u32 flags) = (void *)69;
static __u64 (*const jiffies64)(void) = (void *)118;
static __u64 (*const netns_cookie)(void *ctx) = (void *)122;
static void *(*const ringbuf_reserve)(void *ringbuf, __u64 size, __u64 flags) = (void *)131;
static __u64 (*const coarse_ns)(void) = (void *)160;
static void (*const ringbuf_submit)(void *data, __u64 flags) = (void *)132;
static __u64 (*const ringbuf_query)(void *ringbuf, __u64 flags) = (void *)134;
static long (*const redirect_neigh)(__u32 ifindex, struct next_hop *next, __s32 size, __u64 flags) = (void *)152;
static long (*const redirect_peer)(__u32 ifindex, __u64 flags) = (void *)155;
static long (*const set_retval)(__s32 value) = (void *)187;
