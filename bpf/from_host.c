//go:build ignore
// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* What the host's stack sends into the cluster network, on the device weft_host: to endpoints
 * behind a tunnel and to services.
 */
#include "lib/parse.h"
#include "lib/report.h"
#include "lib/send.h"

SEC("tc")
int from_host(struct __sk_buff *skb)
{
	struct packet pkt = {
		.generation = read_generation(),
		.origin = ORIGIN_HOST,
		.direction = DIRECTION_EGRESS,
	};
	enum drop_reason reason;

	reason = parse(skb, &pkt, skb->protocol, ETHERNET);
	/* Neighbour and listener discovery on the device itself. */
	if (reason == DROP_PROTOCOL || (pkt.key.family == 6 && pkt.icmp >= ICMPV6_LISTENER && pkt.icmp <= ICMPV6_REPORT))
		return TCX_PASS;
	if (unlikely(reason))
		return drop(skb, &pkt, reason);
	return handle(skb, &pkt);
}
