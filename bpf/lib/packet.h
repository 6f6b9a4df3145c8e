// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* A packet, parsed once. IPv4 and IPv6 differ here and where packets are rewritten, nowhere else. */
#pragma once

#include "address.h"
#include "drop.h"
#include "flow.h"
#include "helpers.h"
#include "protocol.h"

/* Where a packet came from: each program is one of these. */
enum origin {
	ORIGIN_ENDPOINT, /* from_endpoint: an endpoint sent it */
	ORIGIN_NETWORK, /* from_netdev: a native device, as it is */
	ORIGIN_TUNNEL, /* from_netdev, from_overlay: in a tunnel, identity is the VNI */
	ORIGIN_STACK, /* to_endpoint: the host's stack sent it to an endpoint's device */
	ORIGIN_HOST, /* from_host: the host's stack sent it into the cluster network */
};

enum fragment_part { FRAGMENT_NONE, FRAGMENT_FIRST, FRAGMENT_LATER };

struct packet {
	struct flow_key key;
	__u32 generation; /* read before anything was looked up */
	__u32 identity; /* ORIGIN_TUNNEL: of the source */
	__u32 l3; /* offset of the IP header */
	__u32 l4; /* offset of the transport header */
	__u32 length; /* bytes from the IP header on */
	__be32 id; /* of the fragments that it is one of */
	__u32 outer; /* bytes of tunnel headers still in front of the IP header */
	__u8 origin; /* enum origin */
	__u8 direction; /* enum direction */
	__u8 tcp_flags;
	__u8 ttl;
	__u8 fragment; /* enum fragment_part */
	__u8 icmp; /* type, if ICMP of either family */
	bool error; /* an ICMP error: the key is not a connection's */
} __attribute__((aligned(8)));

enum { ETHERNET = sizeof(struct ethernet) };

/* header returns a pointer to size bytes at an offset, making them linear where they are not.
 * It ends the validity of all pointers taken before.
 */
static __always_inline void *header(struct __sk_buff *skb, __u32 offset, const __u32 size)
{
	void *at, *end;

	/* A bound for the verifier; parsing refuses headers this far behind. */
	if (!__builtin_constant_p(offset)) {
		offset &= 0x1fff;
		barrier_var(offset);
	}
	at = (void *)(long)skb->data + offset;
	end = (void *)(long)skb->data_end;
	/* Both sides of the check must be the same pointer for the verifier to see the bound. */
	barrier_var(at);
	if (unlikely(at + size > end)) {
		if (skb_pull_data(skb, offset + size))
			return NULL;
		at = (void *)(long)skb->data + offset;
		end = (void *)(long)skb->data_end;
		barrier_var(at);
		if (at + size > end)
			return NULL;
	}
	return at;
}
