// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* VXLAN headers, written and removed by the program: the identity of the source is the VNI. */
#pragma once

#include "config.h"
#include "ipcache.h"
#include "node.h"
#include "packet.h"

/* Bytes that the tunnel adds to a packet. */
enum {
	TUNNEL = sizeof(struct udp) + sizeof(struct vxlan) + ETHERNET,
	TUNNEL_IPV4 = sizeof(struct ipv4) + TUNNEL,
	TUNNEL_IPV6 = sizeof(struct ipv6) + TUNNEL,
};
_Static_assert(TUNNEL_IPV4 == 50, "VXLAN over IPv4");
_Static_assert(TUNNEL_IPV6 == 70, "VXLAN over IPv6");

/* tunnel_identity is the identity that a VNI stands for. A peer's own node calls itself host. */
static __always_inline __u32 tunnel_identity(__be32 vni)
{
	__u32 identity = ntohl(vni) >> 8;

	if (identity == IDENTITY_UNKNOWN)
		return IDENTITY_WORLD;
	return identity == IDENTITY_HOST ? IDENTITY_REMOTE_NODE : identity;
}

static __always_inline void copy_mac(__u8 *to, const __u8 *from)
{
	*(__u32 *)to = *(const __u32 *)from;
	*(__u16 *)(to + 4) = *(const __u16 *)(from + 4);
}

static __always_inline void copy_gateway_mac(__u8 *to)
{
	*(__u32 *)to = *(const volatile __u32 *)gateway_mac;
	*(__u16 *)(to + 4) = *(const volatile __u16 *)(gateway_mac + 4);
}

static __always_inline __be16 ether_type(__u8 family)
{
	return family == 4 ? htons(ETH_P_IP) : htons(ETH_P_IPV6);
}

/* tunnel_source_port is 32768 to 65535, the same for all packets of a flow. */
static __always_inline __be16 tunnel_source_port(const struct flow_key *key)
{
	__u32 hash = words(key->source)[3] ^ words(key->destination)[3];

	hash ^= (__u32)key->source_port << 16 | key->destination_port;
	hash *= 0x9e3779b1;
	return htons(0x8000 | hash >> 17);
}

/* write_tunnel writes what follows the outer IP header; length counts from the UDP header on.
 *
 * The inner Ethernet addresses are constants: the destination is what weft_vxlan has on every
 * node; the source must differ from it, or the kernel takes the packet for its own. The UDP
 * checksum is zero, which RFC 6935 allows tunnels over IPv6 too.
 */
static __always_inline void write_tunnel(struct udp *udp, const struct packet *pkt, __u32 length, __u32 identity)
{
	struct vxlan *vxlan = (void *)(udp + 1);
	struct ethernet *inner = (void *)(vxlan + 1);

	udp->source = tunnel_source_port(&pkt->key);
	udp->destination = htons(tunnel_port);
	udp->length = htons(length);
	udp->checksum = 0;
	vxlan->flags = htonl(VXLAN_FLAGS);
	vxlan->vni = htonl((identity == IDENTITY_HOST ? IDENTITY_REMOTE_NODE : identity) << 8);
	copy_gateway_mac(inner->destination);
	copy_gateway_mac(inner->source);
	inner->source[5] ^= 0xff;
	inner->type = ether_type(pkt->key.family);
}

static __always_inline __u64 encapsulation_flags(void)
{
	return BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2(ETHERNET) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH;
}

/* encapsulate_ipv4 puts the packet into VXLAN over IPv4. The link's addresses are the caller's. */
static __always_inline bool encapsulate_ipv4(struct __sk_buff *skb, const struct packet *pkt, const struct flow *flow, const struct node *self, const struct node *node)
{
	__u32 length = pkt->length + TUNNEL_IPV4;
	struct ethernet *ethernet;
	struct ipv4 *ip;
	__u64 sum;

	if (skb_adjust_room(skb, TUNNEL_IPV4, BPF_ADJ_ROOM_MAC, encapsulation_flags() | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4))
		return false;
	ethernet = header(skb, 0, ETHERNET + TUNNEL_IPV4);
	if (!ethernet)
		return false;
	ethernet->type = htons(ETH_P_IP);
	ip = (void *)(ethernet + 1);
	ip->version_length = 0x45;
	ip->tos = 0;
	ip->length = htons(length);
	/* Routers may fragment the outer packet: each needs an id of its own for a while. */
	ip->id = (__u16)(flow->packets + flow->bytes);
	ip->fragment = 0;
	ip->ttl = 64;
	ip->protocol = IPPROTO_UDP;
	ip->source = words(self->ipv4)[3];
	ip->destination = words(node->ipv4)[3];
	sum = htons(0x4500) + ip->length + ip->id + htons(64 << 8 | IPPROTO_UDP);
	sum += ip->source;
	sum += ip->destination;
	ip->checksum = ~fold(sum);
	write_tunnel((void *)(ip + 1), pkt, length - sizeof(*ip), flow->identity);
	return true;
}

/* encapsulate_ipv6 is the same over IPv6. */
static __always_inline bool encapsulate_ipv6(struct __sk_buff *skb, const struct packet *pkt, const struct flow *flow, const struct node *self, const struct node *node)
{
	__u32 length = pkt->length + TUNNEL;
	struct ethernet *ethernet;
	struct ipv6 *ip;

	if (skb_adjust_room(skb, TUNNEL_IPV6, BPF_ADJ_ROOM_MAC, encapsulation_flags() | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6))
		return false;
	ethernet = header(skb, 0, ETHERNET + TUNNEL_IPV6);
	if (!ethernet)
		return false;
	ethernet->type = htons(ETH_P_IPV6);
	ip = (void *)(ethernet + 1);
	ip->version_class_label = htonl(0x60000000);
	ip->length = htons(length);
	ip->next = IPPROTO_UDP;
	ip->hop_limit = 64;
	copy_address(ip->source, self->ipv6);
	copy_address(ip->destination, node->ipv6);
	write_tunnel((void *)(ip + 1), pkt, length, flow->identity);
	return true;
}

/* encapsulate puts the packet into VXLAN to the flow's node. */
static __always_inline enum drop_reason encapsulate(struct __sk_buff *skb, const struct packet *pkt, const struct flow *flow)
{
	const struct node *self = lookup_node(0);
	const struct node *node = lookup_node(flow->node);
	bool done;

	if (unlikely(!self || !node))
		return DROP_NODE;
	/* Lengths are 16 bits; a GSO packet this near to the limit cannot grow. */
	if (unlikely(pkt->length > 65535 - TUNNEL_IPV6))
		return DROP_TUNNEL;
	if (node->flags & NODE_IPV6)
		done = encapsulate_ipv6(skb, pkt, flow, self, node);
	else
		done = encapsulate_ipv4(skb, pkt, flow, self, node);
	return likely(done) ? DROP_NONE : DROP_TUNNEL;
}

/* decapsulate removes the tunnel headers in front of the IP header, and tells the kernel the
 * family of what is left.
 */
static __always_inline bool decapsulate(struct __sk_buff *skb, struct packet *pkt)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;
	struct ethernet *ethernet;

	flags |= pkt->key.family == 4 ? BPF_F_ADJ_ROOM_DECAP_L3_IPV4 : BPF_F_ADJ_ROOM_DECAP_L3_IPV6;
	if (skb_adjust_room(skb, -(__s32)pkt->outer, BPF_ADJ_ROOM_MAC, flags))
		return false;
	pkt->l3 -= pkt->outer;
	pkt->l4 -= pkt->outer;
	pkt->outer = 0;
	ethernet = header(skb, 0, ETHERNET);
	if (!ethernet)
		return false;
	ethernet->type = ether_type(pkt->key.family);
	return true;
}
