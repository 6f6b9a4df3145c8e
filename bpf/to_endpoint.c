//go:build ignore
// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* What the host's stack sends to an endpoint, on the endpoint's host-side device. Packets of other
 * endpoints and of the network do not come this way: they are delivered inside the namespace.
 */
#include "lib/parse.h"
#include "lib/report.h"
#include "lib/send.h"

SEC("tc")
int to_endpoint(struct __sk_buff *skb)
{
	struct packet pkt = {
		.generation = read_generation(),
		.origin = ORIGIN_STACK,
		.direction = DIRECTION_INGRESS,
	};
	enum drop_reason reason;

	reason = parse(skb, &pkt, skb->protocol, ETHERNET);
	/* Neighbour and listener discovery: the host asks for the endpoint's link address. */
	if (reason == DROP_PROTOCOL || (pkt.key.family == 6 && pkt.icmp >= ICMPV6_LISTENER && pkt.icmp <= ICMPV6_REPORT))
		return TCX_PASS;
	if (unlikely(reason))
		return drop(skb, &pkt, reason);
	return handle(skb, &pkt);
}
