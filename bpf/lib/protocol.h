// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* Headers and numbers of the protocols that a packet may carry. */
#pragma once

#include "kernel.h"

enum { ETH_P_IP = 0x0800, ETH_P_ARP = 0x0806, ETH_P_IPV6 = 0x86dd };

enum {
	IPPROTO_HOPOPTS = 0,
	IPPROTO_ICMP = 1,
	IPPROTO_TCP = 6,
	IPPROTO_UDP = 17,
	IPPROTO_ROUTING = 43,
	IPPROTO_FRAGMENT = 44,
	IPPROTO_AH = 51,
	IPPROTO_ICMPV6 = 58,
	IPPROTO_NONE = 59,
	IPPROTO_DSTOPTS = 60,
	IPPROTO_SCTP = 132,
};

enum {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

enum {
	ICMP_ECHO_REPLY = 0,
	ICMP_UNREACHABLE = 3,
	ICMP_ECHO = 8,
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETER = 12,
	ICMP_FRAG_NEEDED = 4, /* code of UNREACHABLE */
	ICMPV6_UNREACHABLE = 1,
	ICMPV6_TOO_BIG = 2,
	ICMPV6_TIME_EXCEEDED = 3,
	ICMPV6_PARAMETER = 4,
	ICMPV6_ECHO = 128,
	ICMPV6_ECHO_REPLY = 129,
	ICMPV6_LISTENER = 130, /* first of multicast listener and neighbour discovery */
	ICMPV6_SOLICIT = 135,
	ICMPV6_ADVERT = 136,
	ICMPV6_REDIRECT = 137,
	ICMPV6_REPORT = 143, /* listener discovery, version 2: last of them */
};

struct ethernet {
	__u8 destination[6];
	__u8 source[6];
	__be16 type;
};

struct ipv4 {
	__u8 version_length; /* version 4 bits, header length in words 4 bits */
	__u8 tos;
	__be16 length;
	__be16 id;
	__be16 fragment; /* flags 3 bits, offset in 8 bytes 13 bits */
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__be32 source;
	__be32 destination;
};

#define IPV4_DF 0x4000
#define IPV4_MF 0x2000
#define IPV4_OFFSET 0x1fff

struct ipv6 {
	__be32 version_class_label;
	__be16 length;
	__u8 next;
	__u8 hop_limit;
	__u32 source[4];
	__u32 destination[4];
};

struct ipv6_fragment {
	__u8 next;
	__u8 reserved;
	__be16 offset; /* offset in 8 bytes 13 bits, 2 bits, more fragments 1 bit */
	__be32 id;
};

struct udp {
	__be16 source;
	__be16 destination;
	__be16 length;
	__u16 checksum;
};

struct icmp {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be16 id; /* echo; unused or length otherwise */
	__be16 sequence; /* echo; MTU in an ICMPv4 fragmentation needed */
};

struct vxlan {
	__be32 flags;
	__be32 vni; /* upper 24 bits */
};

#define VXLAN_FLAGS 0x08000000u

struct arp {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender[4];
	__u8 target_mac[6];
	__u8 target[4];
};

_Static_assert(sizeof(struct ethernet) == 14, "protocol");
_Static_assert(sizeof(struct ipv4) == 20, "protocol");
_Static_assert(sizeof(struct ipv6) == 40, "protocol");
_Static_assert(sizeof(struct arp) == 28, "protocol");
