// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* Parsing: from bytes to struct packet. */
#pragma once

#include "fragment.h"
#include "packet.h"

/* icmp_ports reads what stands for ports in an ICMP packet of either family. */
__global enum drop_reason icmp_ports(struct __sk_buff *skb, struct packet *pkt)
{
	struct icmp *icmp;
	bool ipv6;

	if (!pkt)
		return DROP_MALFORMED;
	ipv6 = pkt->key.family == 6;
	/* The other family's ICMP is a protocol without ports. */
	if (ipv6 != (pkt->key.protocol == IPPROTO_ICMPV6))
		return DROP_NONE;
	icmp = header(skb, pkt->l4, sizeof(*icmp));
	if (!icmp)
		return DROP_MALFORMED;
	pkt->icmp = icmp->type;
	if (icmp->type == (ipv6 ? ICMPV6_ECHO : ICMP_ECHO))
		pkt->key.source_port = icmp->id;
	else if (icmp->type == (ipv6 ? ICMPV6_ECHO_REPLY : ICMP_ECHO_REPLY))
		pkt->key.destination_port = icmp->id;
	else if (ipv6)
		pkt->error = icmp->type < ICMPV6_ECHO;
	else
		pkt->error = icmp->type == ICMP_UNREACHABLE || icmp->type == ICMP_TIME_EXCEEDED || icmp->type == ICMP_PARAMETER;
	return DROP_NONE;
}

/* first_ports reads the ports of a packet that has a transport header. */
static __always_inline enum drop_reason first_ports(struct __sk_buff *skb, struct packet *pkt)
{
	struct flow_key *key = &pkt->key;
	__be16 *ports;

	if (likely(key->protocol == IPPROTO_TCP)) {
		ports = header(skb, pkt->l4, 20);
		if (unlikely(!ports))
			return DROP_MALFORMED;
		pkt->tcp_flags = ((__u8 *)ports)[13];
	} else if (key->protocol == IPPROTO_UDP || key->protocol == IPPROTO_SCTP) {
		ports = header(skb, pkt->l4, 8);
		if (unlikely(!ports))
			return DROP_MALFORMED;
	} else {
		return key->protocol == IPPROTO_ICMP || key->protocol == IPPROTO_ICMPV6 ? icmp_ports(skb, pkt) : DROP_NONE;
	}
	key->source_port = ports[0];
	key->destination_port = ports[1];
	return DROP_NONE;
}

/* fragment_ports remembers the ports of a first fragment, or gives a later one its own. */
__global enum drop_reason fragment_ports(struct __sk_buff *skb, struct packet *pkt)
{
	struct fragment_key key = {};
	struct fragment ports = {}, *known;
	enum drop_reason reason;

	if (!pkt)
		return DROP_MALFORMED;
	key.id = pkt->id;
	key.protocol = pkt->key.protocol;
	key.family = pkt->key.family;
	key.from = pkt->key.from;
	copy_address(key.source, pkt->key.source);
	copy_address(key.destination, pkt->key.destination);
	if (pkt->fragment == FRAGMENT_FIRST) {
		reason = first_ports(skb, pkt);
		if (reason)
			return reason;
		ports.source_port = pkt->key.source_port;
		ports.destination_port = pkt->key.destination_port;
		map_update(&fragments, &key, &ports, BPF_ANY);
		return DROP_NONE;
	}
	known = map_lookup(&fragments, &key);
	if (!known)
		return DROP_FRAGMENT;
	pkt->key.source_port = known->source_port;
	pkt->key.destination_port = known->destination_port;
	return DROP_NONE;
}

static __always_inline enum drop_reason parse_ipv4(struct __sk_buff *skb, struct packet *pkt)
{
	struct ipv4 *ip = header(skb, pkt->l3, sizeof(*ip));
	struct flow_key *key = &pkt->key;
	__be16 fragment;
	__u32 words;

	if (unlikely(!ip))
		return DROP_MALFORMED;
	words = ip->version_length & 15;
	if (unlikely(words < 5 || ip->version_length >> 4 != 4))
		return DROP_MALFORMED;
	set_mapped(key->source, ip->source);
	set_mapped(key->destination, ip->destination);
	key->protocol = ip->protocol;
	key->family = 4;
	pkt->ttl = ip->ttl;
	pkt->l4 = pkt->l3 + words * 4;
	fragment = ip->fragment;
	if (unlikely(fragment & htons(IPV4_MF | IPV4_OFFSET))) {
		pkt->id = ip->id;
		pkt->fragment = fragment & htons(IPV4_OFFSET) ? FRAGMENT_LATER : FRAGMENT_FIRST;
	}
	return DROP_NONE;
}

enum { EXTENSIONS = 6 };

/* skip_extensions walks over IPv6 extension headers to the transport header. */
__global enum drop_reason skip_extensions(struct __sk_buff *skb, struct packet *pkt)
{
	__u32 offset;
	__u8 next;
	int i;

	if (!pkt)
		return DROP_MALFORMED;
	next = pkt->key.protocol;
	offset = pkt->l4;
	for (i = 0; i < EXTENSIONS; i++) {
		__u8 *extension;
		__u32 length;

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS && next != IPPROTO_FRAGMENT && next != IPPROTO_AH)
			break;
		if (offset > 2048)
			return DROP_MALFORMED;
		extension = header(skb, offset, 8);
		if (!extension)
			return DROP_MALFORMED;
		length = 8 + extension[1] * 8;
		if (next == IPPROTO_FRAGMENT) {
			struct ipv6_fragment *fragment = (void *)extension;

			length = 8;
			pkt->id = fragment->id;
			/* An atomic fragment is a whole packet. */
			if (fragment->offset & htons(0xfff8))
				pkt->fragment = FRAGMENT_LATER;
			else if (fragment->offset & htons(1))
				pkt->fragment = FRAGMENT_FIRST;
		} else if (next == IPPROTO_AH) {
			length = 8 + extension[1] * 4;
		}
		next = extension[0];
		offset += length;
		/* What follows the header of a later fragment is data. */
		if (pkt->fragment == FRAGMENT_LATER)
			break;
	}
	if (i == EXTENSIONS || offset > 4096)
		return DROP_MALFORMED;
	pkt->key.protocol = next;
	pkt->l4 = offset;
	return DROP_NONE;
}

static __always_inline enum drop_reason parse_ipv6(struct __sk_buff *skb, struct packet *pkt)
{
	struct ipv6 *ip = header(skb, pkt->l3, sizeof(*ip));
	struct flow_key *key = &pkt->key;

	if (unlikely(!ip))
		return DROP_MALFORMED;
	if (unlikely((ip->version_class_label & htonl(0xf0000000)) != htonl(0x60000000)))
		return DROP_MALFORMED;
	copy_address(key->source, ip->source);
	copy_address(key->destination, ip->destination);
	if (unlikely(is_mapped(key->source) || is_mapped(key->destination)))
		return DROP_MAPPED;
	key->protocol = ip->next;
	key->family = 6;
	pkt->ttl = ip->hop_limit;
	pkt->l4 = pkt->l3 + sizeof(*ip);
	if (likely(key->protocol == IPPROTO_TCP || key->protocol == IPPROTO_UDP || key->protocol == IPPROTO_ICMPV6))
		return DROP_NONE;
	return skip_extensions(skb, pkt);
}

/* parse fills in the packet whose IP header, of the given EtherType, stands at an offset. */
static __always_inline enum drop_reason parse(struct __sk_buff *skb, struct packet *pkt, __be16 type, __u32 l3)
{
	enum drop_reason reason;

	pkt->l3 = l3;
	pkt->outer = l3 - ETHERNET;
	pkt->length = skb->len - l3;
	if (type == htons(ETH_P_IP))
		reason = parse_ipv4(skb, pkt);
	else if (type == htons(ETH_P_IPV6))
		reason = parse_ipv6(skb, pkt);
	else
		return DROP_PROTOCOL;
	if (unlikely(reason))
		return reason;
	return unlikely(pkt->fragment) ? fragment_ports(skb, pkt) : first_ports(skb, pkt);
}
