// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* What the kernel promises to BPF programs: types, the context, constants of its ABI and of the
 * protocols. Written by hand, so that a build needs clang and nothing else. All of it is
 * little-endian, as the one object is.
 */
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))

/* A function that the verifier checks once, by itself, whoever calls it: it knows of its arguments
 * only their types, and that a pointer may be NULL. Keeps the cost of checking linear.
 */
#define __global __attribute__((noinline))

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define htons(x) ((__be16)__builtin_bswap16((__u16)(x)))
#define ntohs(x) ((__u16)__builtin_bswap16((__u16)(x)))
#define htonl(x) ((__be32)__builtin_bswap32((__u32)(x)))
#define ntohl(x) ((__u32)__builtin_bswap32((__u32)(x)))

/* Fields of a map definition, as loaders read them from BTF. */
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

/* barrier_var keeps the compiler from merging a bounds check into another form of the value,
 * which the verifier could then not follow.
 */
#define barrier_var(var) asm volatile("" : "+r"(var))

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum { BPF_ANY = 0, BPF_NOEXIST = 1, BPF_EXIST = 2 };
enum { BPF_F_NO_PREALLOC = 1 };
enum { PIN_BY_NAME = 1 };

/* The context of a traffic control program; the verifier knows it by this name. */
struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	__u64 flow_keys;
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	__u64 sk;
	__u32 gso_size;
};

/* The context of a program at a socket's calls; the verifier knows it by this name. */
struct bpf_sock_addr {
	__u32 user_family;
	__u32 user_ip4; /* network order, as the ones below */
	__u32 user_ip6[4];
	__u32 user_port; /* in the low 16 bits */
	__u32 family;
	__u32 type;
	__u32 protocol;
	__u32 msg_src_ip4;
	__u32 msg_src_ip6[4];
	__u64 sk;
};
_Static_assert(sizeof(struct bpf_sock_addr) == 72, "ABI of the kernel");

/* Verdicts of a program at a socket's calls: REFUSE gives the caller an error. */
enum { SOCKET_REFUSE = 0, SOCKET_PROCEED = 1 };

enum { ECONNREFUSED = 111 };

/* Verdicts of a tcx program. NEXT lets the following program, or the stack, have the packet. */
enum { TCX_NEXT = -1, TCX_PASS = 0, TCX_DROP = 2, TCX_REDIRECT = 7 };

enum { PACKET_HOST = 0 };

/* bpf_redirect: towards the receive path of the device instead of its transmit path. */
enum { BPF_F_INGRESS = 1 };

enum {
	BPF_F_RECOMPUTE_CSUM = 1,
	BPF_F_HDR_FIELD_MASK = 15,
	BPF_F_PSEUDO_HDR = 1 << 4,
	BPF_F_MARK_MANGLED_0 = 1 << 5,
	BPF_F_IPV6 = 1 << 7,
};

enum { BPF_ADJ_ROOM_NET = 0, BPF_ADJ_ROOM_MAC = 1 };
enum {
	BPF_F_ADJ_ROOM_FIXED_GSO = 1 << 0,
	BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 = 1 << 1,
	BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 = 1 << 2,
	BPF_F_ADJ_ROOM_ENCAP_L4_UDP = 1 << 4,
	BPF_F_ADJ_ROOM_NO_CSUM_RESET = 1 << 5,
	BPF_F_ADJ_ROOM_ENCAP_L2_ETH = 1 << 6,
	BPF_F_ADJ_ROOM_DECAP_L3_IPV4 = 1 << 7,
	BPF_F_ADJ_ROOM_DECAP_L3_IPV6 = 1 << 8,
};
#define BPF_F_ADJ_ROOM_ENCAP_L2(len) (((__u64)(len) & 0xff) << 56)

enum { BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2 };
enum { BPF_RB_AVAIL_DATA = 0, BPF_RB_RING_SIZE = 1 };

enum { AF_INET = 2, AF_INET6 = 10 };

enum {
	BPF_FIB_LKUP_RET_SUCCESS = 0,
	BPF_FIB_LKUP_RET_BLACKHOLE = 1,
	BPF_FIB_LKUP_RET_UNREACHABLE = 2,
	BPF_FIB_LKUP_RET_PROHIBIT = 3,
	BPF_FIB_LKUP_RET_NOT_FWDED = 4,
	BPF_FIB_LKUP_RET_FWD_DISABLED = 5,
	BPF_FIB_LKUP_RET_UNSUPP_LWT = 6,
	BPF_FIB_LKUP_RET_NO_NEIGH = 7,
	BPF_FIB_LKUP_RET_FRAG_NEEDED = 8,
};

/* struct bpf_fib_lookup; mtu is the total length when calling and the route's MTU after. */
struct fib_lookup {
	__u8 family;
	__u8 protocol;
	__be16 source_port;
	__be16 destination_port;
	__u16 mtu;
	__u32 ifindex;
	__be32 flow;
	__u32 source[4];
	__u32 destination[4];
	__u32 table;
	__u16 source_mac[3];
	__u16 destination_mac[3];
};
_Static_assert(sizeof(struct fib_lookup) == 64, "ABI of the kernel");

/* struct bpf_redir_neigh. */
struct next_hop {
	__u32 family;
	__u32 address[4];
};
_Static_assert(sizeof(struct next_hop) == 20, "ABI of the kernel");

/* The first part of struct bpf_tunnel_key, which is all that is read. */
struct tunnel_key {
	__u32 id;
	__u32 remote[4];
	__u8 tos;
	__u8 ttl;
	__u16 ext;
	__u32 label;
	__u32 local[4];
};
_Static_assert(sizeof(struct tunnel_key) == 44, "ABI of the kernel");
