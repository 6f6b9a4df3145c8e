//go:build ignore
// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* What an endpoint sends, on its host-side device. */
#include "lib/neighbour.h"
#include "lib/parse.h"
#include "lib/report.h"
#include "lib/send.h"

SEC("tc")
int from_endpoint(struct __sk_buff *skb)
{
	struct packet pkt = {
		.generation = read_generation(),
		.origin = ORIGIN_ENDPOINT,
		.direction = DIRECTION_EGRESS,
	};
	enum drop_reason reason;

	pkt.key.from = endpoint_slot(skb->ifindex);
	reason = parse(skb, &pkt, skb->protocol, ETHERNET);
	if (unlikely(reason == DROP_PROTOCOL && skb->protocol == htons(ETH_P_ARP)))
		return answer_arp(skb, &pkt);
	if (unlikely(reason))
		return drop(skb, &pkt, reason);
	if (unlikely(pkt.icmp >= ICMPV6_LISTENER && pkt.icmp <= ICMPV6_REPORT && pkt.key.family == 6))
		return answer_solicit(skb, &pkt);
	return handle(skb, &pkt);
}
