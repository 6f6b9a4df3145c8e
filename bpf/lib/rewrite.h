// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* Changing a packet's addresses and ports, checksums included. */
#pragma once

#include "packet.h"
#include "translation.h"

/* fold turns a sum of 16 and 32 bit words into the 16 bits of a checksum, not inverted. */
static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)sum;
}

/* difference is what a checksum over an address changes by, as 32 bits to be added. */
static __always_inline __u64 difference(const void *from, const void *to)
{
	__u64 sum = 0;

	sum += (__u32)~words(from)[0];
	sum += words(to)[0];
	sum += (__u32)~words(from)[1];
	sum += words(to)[1];
	sum += (__u32)~words(from)[2];
	sum += words(to)[2];
	sum += (__u32)~words(from)[3];
	sum += words(to)[3];
	return sum;
}

static __always_inline __u32 fold32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (__u32)sum;
}

/* checksum_offset is where the transport's checksum stands, 0 when none covers the addresses. */
static __always_inline __u32 checksum_offset(const struct packet *pkt)
{
	switch (pkt->key.protocol) {
	case IPPROTO_TCP:
		return pkt->l4 + 16;
	case IPPROTO_UDP:
		return pkt->l4 + 6;
	case IPPROTO_ICMPV6:
		return pkt->key.family == 6 ? pkt->l4 + 2 : 0;
	}
	return 0;
}

/* fix_checksum adds a difference of the addresses to the transport's checksum. Packets whose
 * checksum the device will compute, and UDP without one, are known to the helper.
 */
static __always_inline long fix_checksum(struct __sk_buff *skb, const struct packet *pkt, __u32 offset, __u64 diff)
{
	__u64 flags = BPF_F_PSEUDO_HDR;
	long err;

	if (pkt->key.protocol == IPPROTO_UDP)
		flags |= BPF_F_MARK_MANGLED_0;
	if (pkt->key.family == 4)
		return l4_csum_replace(skb, offset, 0, fold32(diff), flags);
	err = l4_csum_replace(skb, offset, 0, fold32(diff), flags | BPF_F_IPV6);
	/* Kernels before 6.16 do not know the flag, which matters for CHECKSUM_COMPLETE only. */
	return err ? l4_csum_replace(skb, offset, 0, fold32(diff), flags) : 0;
}

static __always_inline long fix_port(struct __sk_buff *skb, const struct packet *pkt, __u32 offset, __be16 from, __be16 to)
{
	__u64 flags = sizeof(from);

	if (from == to)
		return 0;
	if (pkt->key.protocol == IPPROTO_UDP)
		flags |= BPF_F_MARK_MANGLED_0;
	return l4_csum_replace(skb, offset, from, to, flags);
}

/* write_addresses puts the addresses of a key into the IP header at an offset. */
static __always_inline bool write_addresses(struct __sk_buff *skb, __u32 l3, const struct flow_key *to, __u64 diff)
{
	if (to->family == 4) {
		struct ipv4 *ip = header(skb, l3, sizeof(*ip));

		if (!ip)
			return false;
		ip->source = words(to->source)[3];
		ip->destination = words(to->destination)[3];
		ip->checksum = ~fold((__u16)~ip->checksum + diff);
	} else {
		struct ipv6 *ip = header(skb, l3, sizeof(*ip));

		if (!ip)
			return false;
		copy_address(ip->source, to->source);
		copy_address(ip->destination, to->destination);
	}
	return true;
}

/* translate changes the packet from its key into the key that `to` is. False: the kernel refused. */
static __always_inline bool translate_to(struct __sk_buff *skb, const struct packet *pkt, const struct flow_key *to)
{
	__u64 diff = difference(pkt->key.source, to->source) + difference(pkt->key.destination, to->destination);
	__u32 offset = checksum_offset(pkt);
	__be16 *ports;

	if (offset && pkt->fragment != FRAGMENT_LATER) {
		if (fix_checksum(skb, pkt, offset, diff))
			return false;
		if (fix_port(skb, pkt, offset, pkt->key.source_port, to->source_port))
			return false;
		if (fix_port(skb, pkt, offset, pkt->key.destination_port, to->destination_port))
			return false;
		if (pkt->key.protocol != IPPROTO_ICMPV6) {
			ports = header(skb, pkt->l4, 8);
			if (!ports)
				return false;
			ports[0] = to->source_port;
			ports[1] = to->destination_port;
		}
	}
	return write_addresses(skb, pkt->l3, to, diff);
}

/* translate changes the packet as its flow says. */
__global bool translate(struct __sk_buff *skb, const struct packet *pkt, const struct flow *flow)
{
	struct flow_key to;

	if (!pkt || !flow)
		return false;
	translated(&to, &pkt->key, flow);
	return translate_to(skb, pkt, &to);
}
