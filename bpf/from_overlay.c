//go:build ignore
// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* What the kernel's VXLAN device received: outer packets that came in fragments and were put
 * together by the stack, and whatever else from_netdev did not take for a tunnelled packet.
 */
#include "lib/parse.h"
#include "lib/report.h"
#include "lib/send.h"

/* overlay_identity reads the VNI that the device took off the packet; 0: there is none. */
__global __u32 overlay_identity(struct __sk_buff *skb)
{
	struct tunnel_key tunnel = {};

	if (skb_get_tunnel_key(skb, &tunnel, sizeof(tunnel), 0))
		return 0;
	return tunnel_identity(htonl(tunnel.id << 8));
}

SEC("tc")
int from_overlay(struct __sk_buff *skb)
{
	struct packet pkt = {
		.generation = read_generation(),
		.origin = ORIGIN_TUNNEL,
		.direction = DIRECTION_INGRESS,
	};
	enum drop_reason reason;

	reason = parse(skb, &pkt, skb->protocol, ETHERNET);
	if (unlikely(reason))
		return drop(skb, &pkt, reason);
	pkt.identity = overlay_identity(skb);
	if (!pkt.identity)
		return drop(skb, &pkt, DROP_TUNNEL);
	/* The inner destination is no device's address, so the kernel takes it for somebody else's. */
	skb_change_type(skb, PACKET_HOST);
	return handle(skb, &pkt);
}
