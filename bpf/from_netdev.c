//go:build ignore
// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* What arrives on a native device: tunnelled packets for this node, and packets for its endpoints.
 * Everything else is the stack's.
 */
#include "lib/ipcache.h"
#include "lib/parse.h"
#include "lib/report.h"
#include "lib/send.h"

/* inner_type is the type of the packet inside a VXLAN packet, 0 when it is none. */
static __always_inline __be16 inner_type(struct packet *pkt, const struct udp *udp)
{
	const struct vxlan *vxlan = (const void *)(udp + 1);
	const struct ethernet *inner = (const void *)(vxlan + 1);

	if (udp->destination != htons(tunnel_port) || vxlan->flags != htonl(VXLAN_FLAGS))
		return 0;
	pkt->identity = tunnel_identity(vxlan->vni);
	return inner->type;
}

static __always_inline __be16 open_ipv4(struct __sk_buff *skb, struct packet *pkt)
{
	struct ipv4 *ip = header(skb, ETHERNET, sizeof(*ip));
	struct node *self;

	if (!ip || ip->protocol != IPPROTO_UDP || ip->version_length != 0x45 || ip->fragment & htons(IPV4_MF | IPV4_OFFSET))
		return 0;
	ip = header(skb, ETHERNET, TUNNEL_IPV4);
	self = lookup_node(0);
	if (!ip || !self || words(self->ipv4)[3] != ip->destination)
		return 0;
	return inner_type(pkt, (const void *)(ip + 1));
}

static __always_inline __be16 open_ipv6(struct __sk_buff *skb, struct packet *pkt)
{
	struct ipv6 *ip = header(skb, ETHERNET, sizeof(*ip));
	struct node *self;

	if (!ip || ip->next != IPPROTO_UDP)
		return 0;
	ip = header(skb, ETHERNET, TUNNEL_IPV6);
	self = lookup_node(0);
	if (!ip || !self || !same_address(self->ipv6, ip->destination))
		return 0;
	return inner_type(pkt, (const void *)(ip + 1));
}

SEC("tc")
int from_netdev(struct __sk_buff *skb)
{
	struct packet pkt = {
		.generation = read_generation(),
		.origin = ORIGIN_NETWORK,
		.direction = DIRECTION_INGRESS,
	};
	__be16 type = skb->protocol, inner = 0;
	enum drop_reason reason;
	__u32 l3 = ETHERNET;

	if (tunnel_over_ipv4 && type == htons(ETH_P_IP)) {
		inner = open_ipv4(skb, &pkt);
		l3 += inner ? TUNNEL_IPV4 : 0;
	} else if (tunnel_over_ipv6 && type == htons(ETH_P_IPV6)) {
		inner = open_ipv6(skb, &pkt);
		l3 += inner ? TUNNEL_IPV6 : 0;
	}
	if (inner) {
		pkt.origin = ORIGIN_TUNNEL;
		type = inner;
	}
	reason = parse(skb, &pkt, type, l3);
	/* What cannot be parsed is not for an endpoint. */
	if (unlikely(reason))
		return inner ? drop(skb, &pkt, reason) : TCX_PASS;
	return handle(skb, &pkt);
}
