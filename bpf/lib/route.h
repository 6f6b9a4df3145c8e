// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* The way out of the node: the kernel's routes and neighbours, asked at most once a second. */
#pragma once

#include "config.h"
#include "device.h"
#include "hop.h"
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

/* A route to be found: between which addresses, of which family. */
struct path {
	struct address_key source;
	struct address_key destination;
	__u16 limit; /* what the node's row says about the MTU; 0: nothing */
	__u8 overhead; /* bytes that the tunnel adds */
	bool ipv6;
};

/* flow_path is the path that a flow's packets take, outside of the tunnel if there is one. */
static __always_inline bool flow_path(struct path *path, const struct packet *pkt, const struct flow *flow)
{
	struct node *self = lookup_node(0);
	struct node *node = lookup_node(flow->node);

	if (!self || !node)
		return false;
	path->limit = node->mtu;
	if (!(flow->state & FLOW_TUNNEL)) {
		path->ipv6 = pkt->key.family == 6;
		copy_address(path->source.address, flow->state & FLOW_SOURCE ? flow->address : pkt->key.source);
		copy_address(path->destination.address, flow->state & FLOW_DESTINATION ? flow->address : pkt->key.destination);
		if (!flow->node)
			path->limit = 0;
	} else if (node->flags & NODE_IPV6) {
		path->ipv6 = true;
		path->overhead = TUNNEL_IPV6;
		copy_address(path->source.address, self->ipv6);
		copy_address(path->destination.address, node->ipv6);
	} else {
		path->overhead = TUNNEL_IPV4;
		copy_address(path->source.address, self->ipv4);
		copy_address(path->destination.address, node->ipv4);
	}
	return true;
}

static __always_inline void set_mtu(struct flow *flow, const struct path *path, __u32 route)
{
	__u32 mtu = path->limit && (!route || path->limit < route) ? path->limit : route;

	if (mtu > path->overhead)
		flow->mtu = mtu - path->overhead;
}

/* known_hop gives the flow a next hop that another flow asked for within the second. */
static __always_inline bool known_hop(struct flow *flow, const struct path *path, __u32 tick)
{
	struct hop *hop = map_lookup(&hops, &path->destination);

	if (!hop || (__s32)(hop->until - tick) <= 0 || !lookup_device(hop->ifindex))
		return false;
	flow->ifindex = hop->ifindex;
	copy_mac(flow->mac, hop->mac);
	set_mtu(flow, path, hop->mtu);
	flow->route_until = hop->until;
	return true;
}

static __always_inline void remember_hop(const struct path *path, const struct fib_lookup *fib, __u32 until)
{
	struct hop hop = {.until = until, .ifindex = fib->ifindex, .mtu = fib->mtu};

	((__u16 *)hop.mac)[0] = fib->destination_mac[0];
	((__u16 *)hop.mac)[1] = fib->destination_mac[1];
	((__u16 *)hop.mac)[2] = fib->destination_mac[2];
	map_update(&hops, &path->destination, &hop, BPF_ANY);
}

enum { ROUTE_KNOWN = DROP_REASONS };

/* find_route writes the next hop into the flow, where it holds for a second if the neighbour is
 * known. ROUTE_KNOWN: it is ready to be used. DROP_NONE: the kernel was asked, and the packet itself
 * has to be sent by redirect_neigh to `next`: that is what keeps the kernel's neighbour entry alive.
 */
__global int find_route(struct __sk_buff *skb, const struct packet *pkt, struct flow *flow, struct next_hop *next)
{
	/* A length of one byte makes the kernel report the route's MTU instead of judging the packet. */
	struct fib_lookup fib = {.ifindex = skb->ifindex, .mtu = 1};
	struct path path = {};
	__u32 tick = now();
	long found;

	if (!pkt || !flow || !next)
		return DROP_NO_ROUTE;
	if (!flow_path(&path, pkt, flow))
		return DROP_NODE;
	if (known_hop(flow, &path, tick))
		return ROUTE_KNOWN;
	fib.family = path.ipv6 ? AF_INET6 : AF_INET;
	if (path.ipv6) {
		copy_address(fib.source, path.source.address);
		copy_address(fib.destination, path.destination.address);
	} else {
		fib.source[0] = words(path.source.address)[3];
		fib.destination[0] = words(path.destination.address)[3];
	}
	found = fib_lookup(skb, &fib, sizeof(fib), 0);
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return DROP_NO_ROUTE;
	flow->ifindex = fib.ifindex;
	flow->route_until = tick;
	if (found == BPF_FIB_LKUP_RET_SUCCESS) {
		copy_route_mac(flow->mac, fib.destination_mac);
		remember_device(&fib);
		flow->route_until = tick + ticks_per_second;
		remember_hop(&path, &fib, flow->route_until);
		set_mtu(flow, &path, fib.mtu);
	} else {
		set_mtu(flow, &path, 0);
	}
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
