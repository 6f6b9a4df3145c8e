// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* The packet that an ICMP error quotes. */
#pragma once

#include "packet.h"
#include "rewrite.h"

/* Where the quoted packet's headers stand. */
struct quote {
	__u32 l3;
	__u32 l4;
};

/* quoted_ports reads what the first eight bytes of the quoted transport say. */
static __always_inline bool quoted_ports(struct __sk_buff *skb, __u32 l4, struct flow_key *key)
{
	__be16 *ports = header(skb, l4, 8);
	struct icmp *icmp = (void *)ports;

	if (!ports)
		return false;
	switch (key->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		key->source_port = ports[0];
		key->destination_port = ports[1];
		return true;
	case IPPROTO_ICMP:
		if (icmp->type == ICMP_ECHO)
			key->source_port = icmp->id;
		else if (icmp->type == ICMP_ECHO_REPLY)
			key->destination_port = icmp->id;
		return true;
	case IPPROTO_ICMPV6:
		if (icmp->type == ICMPV6_ECHO)
			key->source_port = icmp->id;
		else if (icmp->type == ICMPV6_ECHO_REPLY)
			key->destination_port = icmp->id;
		return true;
	}
	return true;
}

/* read_quote fills in the key of the quoted packet, as its sender sent it. */
static __always_inline bool read_quote(struct __sk_buff *skb, struct quote *quote, struct flow_key *key, __u8 family)
{
	key->family = family;
	if (family == 4) {
		struct ipv4 *ip = header(skb, quote->l3, sizeof(*ip));

		if (!ip || (ip->version_length & 15) < 5 || ip->fragment & htons(IPV4_OFFSET))
			return false;
		set_mapped(key->source, ip->source);
		set_mapped(key->destination, ip->destination);
		key->protocol = ip->protocol;
		quote->l4 = quote->l3 + (ip->version_length & 15) * 4;
	} else {
		struct ipv6 *ip = header(skb, quote->l3, sizeof(*ip));

		if (!ip)
			return false;
		copy_address(key->source, ip->source);
		copy_address(key->destination, ip->destination);
		key->protocol = ip->next;
		quote->l4 = quote->l3 + sizeof(*ip);
		if (key->protocol == IPPROTO_FRAGMENT) {
			struct ipv6_fragment *fragment = header(skb, quote->l4, sizeof(*fragment));

			if (!fragment || fragment->offset & htons(0xfff8))
				return false;
			key->protocol = fragment->next;
			quote->l4 += sizeof(*fragment);
		}
	}
	return quoted_ports(skb, quote->l4, key);
}

/* rewrite_quote turns the quoted packet from key into to, both in the direction of the error, and
 * returns what that changes a checksum over it by.
 */
static __always_inline bool rewrite_quote(struct __sk_buff *skb, const struct quote *quote, const struct flow_key *key, const struct flow_key *to, __u64 *changed)
{
	__u64 diff = difference(key->source, to->source) + difference(key->destination, to->destination);
	__be16 *ports;

	if (key->family == 4) {
		struct ipv4 *ip = header(skb, quote->l3, sizeof(*ip));

		if (!ip)
			return false;
		ip->source = words(to->destination)[3];
		ip->destination = words(to->source)[3];
		/* The quoted header's own checksum makes up for the addresses. */
		ip->checksum = ~fold((__u16)~ip->checksum + diff);
	} else {
		struct ipv6 *ip = header(skb, quote->l3, sizeof(*ip));

		if (!ip)
			return false;
		copy_address(ip->source, to->destination);
		copy_address(ip->destination, to->source);
		*changed += diff;
	}
	if (key->protocol != IPPROTO_TCP && key->protocol != IPPROTO_UDP)
		return true;
	ports = header(skb, quote->l4, 8);
	if (!ports)
		return false;
	ports[0] = to->destination_port;
	ports[1] = to->source_port;
	*changed += (__u64)(__u16)~key->source_port + to->source_port + (__u16)~key->destination_port + to->destination_port;
	return true;
}
