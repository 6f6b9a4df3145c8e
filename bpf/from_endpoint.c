//go:build ignore
// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* What an endpoint sends, on its host-side device. */
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
	if (unlikely(reason))
		return drop(skb, &pkt, reason);
	return handle(skb, &pkt);
}
