// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* ICMP errors to the endpoint that sent a packet, made of the packet itself. */
#pragma once

#include "config.h"
#include "packet.h"
#include "report.h"
#include "rewrite.h"
#include "tunnel.h"

/* return_to_sender delivers what the packet was made into to the endpoint that sent it. */
static __always_inline int return_to_sender(struct __sk_buff *skb)
{
	struct ethernet *ethernet = header(skb, 0, ETHERNET);

	if (!ethernet)
		return TCX_DROP;
	copy_mac(ethernet->destination, ethernet->source);
	copy_gateway_mac(ethernet->source);
	return redirect_peer(skb->ifindex, 0);
}

/* pseudo_checksum is the checksum of an IPv6 transport of length bytes behind the header. */
static __always_inline __u16 pseudo_checksum(const struct ipv6 *ip, const __u32 length, __u8 protocol)
{
	__s64 sum = csum_diff(NULL, 0, ip->source, 32 + length, 0);

	return ~fold((__u64)(__u32)sum + htonl(length) + htonl(protocol));
}

struct error_ipv4 {
	struct ipv4 ip;
	struct icmp icmp;
	__u32 quote[7]; /* header without options and eight bytes */
};

struct error_ipv6 {
	struct ipv6 ip;
	struct icmp icmp;
	__u32 quote[20];
};

/* Bytes quoted of an IPv6 packet. Linux wants eight of the transport, which extension headers move
 * further back; packets that are too big have them, old ones may be short.
 */
enum { QUOTE_BIG = 80, QUOTE_OLD = 48 };

static __always_inline bool write_error_ipv4(struct __sk_buff *skb, const struct packet *pkt, __u16 mtu)
{
	struct error_ipv4 error = {};
	const volatile __u32 *gateway = (const volatile __u32 *)gateway_ipv4;

	if (skb_load(skb, ETHERNET, error.quote, sizeof(error.quote)))
		return false;
	error.ip.version_length = 0x45;
	error.ip.length = htons(sizeof(error));
	error.ip.ttl = 64;
	error.ip.protocol = IPPROTO_ICMP;
	error.ip.source = gateway[3];
	error.ip.destination = words(pkt->key.source)[3];
	error.ip.checksum = ~fold((__u32)csum_diff(NULL, 0, (void *)&error.ip, sizeof(error.ip), 0));
	error.icmp.type = mtu ? ICMP_UNREACHABLE : ICMP_TIME_EXCEEDED;
	error.icmp.code = mtu ? ICMP_FRAG_NEEDED : 0;
	error.icmp.sequence = htons(mtu);
	error.icmp.checksum = ~fold((__u32)csum_diff(NULL, 0, (void *)&error.icmp, sizeof(error) - sizeof(error.ip), 0));
	return !skb_change_tail(skb, ETHERNET + sizeof(error), 0) && !skb_store(skb, ETHERNET, &error, sizeof(error), 0);
}

static __always_inline bool write_error_ipv6(struct __sk_buff *skb, const struct packet *pkt, __u16 mtu, const __u32 quoted)
{
	const __u32 length = sizeof(struct icmp) + quoted;
	struct error_ipv6 error = {};

	if (skb_load(skb, ETHERNET, error.quote, quoted))
		return false;
	error.ip.version_class_label = htonl(0x60000000);
	error.ip.length = htons(length);
	error.ip.next = IPPROTO_ICMPV6;
	error.ip.hop_limit = 64;
	copy_constant(error.ip.source, gateway_ipv6);
	copy_address(error.ip.destination, pkt->key.source);
	error.icmp.type = mtu ? ICMPV6_TOO_BIG : ICMPV6_TIME_EXCEEDED;
	/* The MTU is 32 bits here, where the echo has id and sequence. */
	error.icmp.sequence = htons(mtu);
	error.icmp.checksum = pseudo_checksum(&error.ip, length, IPPROTO_ICMPV6);
	return !skb_change_tail(skb, ETHERNET + sizeof(error.ip) + length, 0) && !skb_store(skb, ETHERNET, &error, sizeof(error.ip) + length, 0);
}

/* refuse drops a packet that is too big for an MTU or, with none, too old, and tells the endpoint
 * that sent it. The host's stack knows routes and MTUs itself. Errors are not answered, nor are
 * fragments that carry no ports.
 */
__global int refuse(struct __sk_buff *skb, const struct packet *pkt, __u16 mtu)
{
	bool done;

	drop(skb, pkt, mtu ? DROP_TOO_BIG : DROP_TTL);
	if (!pkt || pkt->origin != ORIGIN_ENDPOINT || pkt->error || pkt->fragment == FRAGMENT_LATER)
		return TCX_DROP;
	if (pkt->key.family == 4)
		done = pkt->l4 == ETHERNET + sizeof(struct ipv4) && write_error_ipv4(skb, pkt, mtu);
	else if (mtu)
		done = write_error_ipv6(skb, pkt, mtu, QUOTE_BIG);
	else
		done = write_error_ipv6(skb, pkt, 0, QUOTE_OLD);
	return done ? return_to_sender(skb) : TCX_DROP;
}
