// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* ICMP errors belong to the connection of the packet they quote. They follow the entry of the
 * direction they travel in, fresh or not, and are translated outside and inside.
 */
#pragma once

#include "endpoint.h"
#include "packet.h"
#include "quote.h"
#include "rewrite.h"
#include "tunnel.h"

/* rewrite_error translates an error whose connection's key becomes `to`. */
__global bool rewrite_error(struct __sk_buff *skb, const struct packet *pkt, const struct flow_key *key, const struct flow_key *to)
{
	struct quote quote;
	struct icmp *icmp;
	__u64 changed = 0, diff;

	if (!pkt || !key || !to)
		return false;
	quote.l3 = pkt->l4 + sizeof(*icmp);
	quote.l4 = quote.l3 + sizeof(struct ipv6);
	if (key->family == 4) {
		__u8 *at = header(skb, quote.l3, 1);

		if (!at)
			return false;
		quote.l4 = quote.l3 + (*at & 15) * 4;
	} else {
		__u8 *at = header(skb, quote.l3, sizeof(struct ipv6));

		if (!at)
			return false;
		if (((struct ipv6 *)at)->next == IPPROTO_FRAGMENT)
			quote.l4 += sizeof(struct ipv6_fragment);
	}
	if (!rewrite_quote(skb, &quote, key, to, &changed))
		return false;
	if (key->family == 4) {
		struct ipv4 *ip = header(skb, pkt->l3, sizeof(*ip));

		if (!ip)
			return false;
		diff = difference(key->destination, to->destination);
		ip->destination = words(to->destination)[3];
		if (same_address(pkt->key.source, key->source)) {
			diff += difference(key->source, to->source);
			ip->source = words(to->source)[3];
		}
		ip->checksum = ~fold((__u16)~ip->checksum + diff);
	} else {
		struct ipv6 *ip = header(skb, pkt->l3, sizeof(*ip));

		if (!ip)
			return false;
		changed += difference(key->destination, to->destination);
		copy_address(ip->destination, to->destination);
		if (same_address(pkt->key.source, key->source)) {
			changed += difference(key->source, to->source);
			copy_address(ip->source, to->source);
		}
	}
	icmp = header(skb, pkt->l4, sizeof(*icmp));
	if (!icmp)
		return false;
	icmp->checksum = ~fold((__u16)~icmp->checksum + changed);
	return true;
}

/* may_report tells whether an error's sender may use its source address. Errors from the network
 * come from any router.
 */
static __always_inline bool may_report(const struct packet *pkt)
{
	struct endpoint *endpoint;

	if (pkt->origin != ORIGIN_ENDPOINT)
		return true;
	endpoint = lookup_endpoint(pkt->key.from);
	return endpoint && same_address(pkt->key.source, pkt->key.family == 4 ? endpoint->ipv4 : endpoint->ipv6);
}

/* relate finds the connection that an error quotes, translates the error and makes the packet's key
 * that of the connection. DROP_NONE: the entry is in a table.
 */
__global enum drop_reason relate(struct __sk_buff *skb, struct packet *pkt)
{
	struct flow_key quoted = {}, key;
	struct quote quote = {};
	struct flow *flow;

	if (!pkt)
		return DROP_UNRELATED;
	if (!may_report(pkt))
		return DROP_SOURCE;
	quote.l3 = pkt->l4 + sizeof(struct icmp);
	if (!read_quote(skb, &quote, &quoted, pkt->key.family))
		return DROP_UNRELATED;
	reverse(&key, &quoted, pkt->key.from);
	flow = find_flow(&key);
	if (!flow || !same_address(pkt->key.destination, key.destination))
		return DROP_UNRELATED;
	/* What comes from outside ends at this node. */
	if ((pkt->origin == ORIGIN_NETWORK || pkt->origin == ORIGIN_TUNNEL) && flow->state & FLOW_LEAVES)
		return DROP_UNRELATED;
	if (pkt->outer && !decapsulate(skb, pkt))
		return DROP_TUNNEL;
	if (flow->state & FLOW_TRANSLATED) {
		translated(&quoted, &key, flow);
		if (!rewrite_error(skb, pkt, &key, &quoted))
			return DROP_REWRITE;
	}
	pkt->key = key;
	return DROP_NONE;
}
