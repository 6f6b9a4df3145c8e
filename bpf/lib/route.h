// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* The way out of the node: the kernel's routes and neighbours, asked at most once a second. */
#pragma once

#include "config.h"
#include "device.h"
#include "node.h"
#include "packet.h"
#include "runtime.h"
#include "tunnel.h"

/* copy_route_mac copies from the stack, where words of four bytes would not be aligned. */
static __always_inline void copy_route_mac(__u8 *to, const __u16 *from)
{
	((__u16 *)to)[0] = from[0];
	((__u16 *)to)[1] = from[1];
	((__u16 *)to)[2] = from[2];
}

/* remember_device keeps the address of a native device for packets that need no route lookup. */
static __always_inline void remember_device(const struct fib_lookup *fib)
{
	__u32 index = fib->ifindex % DEVICES;
	struct device *device = map_lookup(&devices, &index);

	if (!device)
		return;
	copy_route_mac(device->mac, fib->source_mac);
	device->ifindex = fib->ifindex;
}

/* lookup_device returns the row of a device, NULL when none was remembered. */
static __always_inline struct device *lookup_device(__u32 ifindex)
{
	__u32 index = ifindex % DEVICES;
	struct device *device = map_lookup(&devices, &index);

	return device && device->ifindex == ifindex ? device : NULL;
}

static __always_inline void route_ends(struct fib_lookup *fib, bool ipv6, const void *source, const void *destination)
{
	if (ipv6) {
		fib->family = AF_INET6;
		copy_address(fib->source, source);
		copy_address(fib->destination, destination);
	} else {
		fib->family = AF_INET;
		fib->source[0] = words(source)[3];
		fib->destination[0] = words(destination)[3];
	}
}

/* find_route asks the kernel for the flow's next hop and writes it into the flow, where it holds
 * for a second if the neighbour is known. The packet itself has to be sent by redirect_neigh to
 * `next`: that is what keeps the kernel's neighbour entry alive.
 */
__global enum drop_reason find_route(struct __sk_buff *skb, const struct packet *pkt, struct flow *flow, struct next_hop *next)
{
	/* A length of one byte makes the kernel report the route's MTU instead of judging the packet. */
	struct fib_lookup fib = {.ifindex = skb->ifindex, .mtu = 1};
	__u32 overhead = 0, limit = 0, tick = now();
	long found;

	if (!pkt || !flow || !next)
		return DROP_NO_ROUTE;
	if (flow->state & FLOW_TUNNEL) {
		struct node *self = lookup_node(0);
		struct node *node = lookup_node(flow->node);

		if (!self || !node)
			return DROP_NODE;
		if (node->flags & NODE_IPV6) {
			overhead = TUNNEL_IPV6;
			route_ends(&fib, true, self->ipv6, node->ipv6);
		} else {
			overhead = TUNNEL_IPV4;
			route_ends(&fib, false, self->ipv4, node->ipv4);
		}
		limit = node->mtu;
	} else {
		struct node *node = lookup_node(flow->node);

		if (node)
			limit = node->mtu;
		route_ends(&fib, pkt->key.family == 6, flow->state & FLOW_SOURCE ? flow->address : pkt->key.source,
			   flow->state & FLOW_DESTINATION ? flow->address : pkt->key.destination);
	}
	found = fib_lookup(skb, &fib, sizeof(fib), 0);
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return DROP_NO_ROUTE;
	if (found == BPF_FIB_LKUP_RET_SUCCESS) {
		if (!limit || limit > fib.mtu)
			limit = fib.mtu;
		copy_route_mac(flow->mac, fib.destination_mac);
		remember_device(&fib);
	}
	if (limit > overhead)
		flow->mtu = limit - overhead;
	flow->ifindex = fib.ifindex;
	flow->route_until = found == BPF_FIB_LKUP_RET_SUCCESS ? tick + ticks_per_second : tick;
	next->family = fib.family;
	next->address[0] = fib.destination[0];
	next->address[1] = fib.destination[1];
	next->address[2] = fib.destination[2];
	next->address[3] = fib.destination[3];
	return DROP_NONE;
}

/* segment_length is the largest packet that the stack or the device will make of this one. */
__global __u32 segment_length(struct __sk_buff *skb, const struct packet *pkt)
{
	__u32 headers;
	__u8 *tcp;

	if (!pkt)
		return 0;
	headers = pkt->l4 - pkt->l3;
	if (!skb->gso_size)
		return pkt->length;
	if (pkt->key.protocol != IPPROTO_TCP)
		return headers + sizeof(struct udp) + skb->gso_size;
	tcp = header(skb, pkt->l4, 20);
	if (!tcp)
		return pkt->length;
	return headers + (tcp[12] >> 4) * 4 + skb->gso_size;
}

static __always_inline bool too_big(struct __sk_buff *skb, const struct packet *pkt, const struct flow *flow)
{
	return unlikely(pkt->length > flow->mtu) && flow->mtu && segment_length(skb, pkt) > flow->mtu;
}
