// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* The way of a packet through its flow: look up, or decide, then send. */
#pragma once

#include "answer.h"
#include "decide.h"
#include "related.h"
#include "rewrite.h"
#include "route.h"
#include "tunnel.h"

/* count adds the packet to its flow. Two processors that send in one direction at the same time
 * may lose a count: these are for people, drops are counted apart and exactly.
 */
static __always_inline void count(struct __sk_buff *skb, const struct packet *pkt, struct flow *flow, __u32 tick)
{
	__u32 segments = skb->gso_segs;

	flow->packets += segments ? segments : 1;
	flow->bytes += pkt->length;
	if (flow->seen != tick)
		flow->seen = tick;
}

/* age is what a router does: one less to live. */
static __always_inline bool age(struct __sk_buff *skb, struct packet *pkt)
{
	if (pkt->key.family == 4) {
		struct ipv4 *ip = header(skb, ETHERNET, sizeof(*ip));
		__u32 sum;

		if (unlikely(!ip))
			return false;
		ip->ttl--;
		sum = ip->checksum + htons(0x0100);
		ip->checksum = sum + (sum >= 0xffff);
	} else {
		struct ipv6 *ip = header(skb, ETHERNET, sizeof(*ip));

		if (unlikely(!ip))
			return false;
		ip->hop_limit--;
	}
	return true;
}

/* deliver hands the packet to an endpoint of this node, inside its namespace. */
static __always_inline int deliver(struct __sk_buff *skb, struct packet *pkt, const struct flow *flow)
{
	struct ethernet *ethernet;

	if (pkt->origin == ORIGIN_STACK)
		return TCX_PASS;
	ethernet = header(skb, 0, ETHERNET);
	if (unlikely(!ethernet))
		return drop(skb, pkt, DROP_REWRITE);
	copy_mac(ethernet->destination, flow->mac);
	copy_gateway_mac(ethernet->source);
	/* On a transmit path the kernel has no redirect_peer: to_endpoint will see the packet. */
	if (pkt->origin == ORIGIN_HOST)
		return redirect(flow->ifindex, 0);
	return redirect_peer(flow->ifindex, 0);
}

/* leave sends the packet to another node. */
static __always_inline int leave(struct __sk_buff *skb, struct packet *pkt, struct flow *flow, __u32 tick)
{
	struct device *device = lookup_device(flow->ifindex);
	bool routed = (__s32)(flow->route_until - tick) > 0 && device;
	struct ethernet *ethernet;
	struct next_hop next;
	int reason;

	if (unlikely(!routed)) {
		__builtin_memset(&next, 0, sizeof(next));
		reason = find_route(skb, pkt, flow, &next);
		if (reason && reason != ROUTE_KNOWN)
			return drop(skb, pkt, reason);
		device = lookup_device(flow->ifindex);
		routed = reason == ROUTE_KNOWN;
	}
	if (unlikely(too_big(skb, pkt, flow)))
		return refuse(skb, pkt, flow->mtu);
	if (pkt->origin == ORIGIN_ENDPOINT) {
		if (unlikely(pkt->ttl <= 1))
			return refuse(skb, pkt, 0);
		if (unlikely(!age(skb, pkt)))
			return drop(skb, pkt, DROP_REWRITE);
	}
	if (flow->state & FLOW_TRANSLATED && !pkt->error && unlikely(!translate(skb, pkt, flow)))
		return drop(skb, pkt, DROP_REWRITE);
	if (flow->state & FLOW_TUNNEL) {
		reason = encapsulate(skb, pkt, flow);
		if (unlikely(reason))
			return drop(skb, pkt, reason);
	}
	if (unlikely(!routed))
		return redirect_neigh(flow->ifindex, &next, sizeof(next), 0);
	ethernet = header(skb, 0, ETHERNET);
	if (unlikely(!ethernet || !device))
		return drop(skb, pkt, DROP_REWRITE);
	copy_mac(ethernet->destination, flow->mac);
	copy_mac(ethernet->source, device->mac);
	return redirect(flow->ifindex, 0);
}

static __always_inline int send(struct __sk_buff *skb, struct packet *pkt, struct flow *flow)
{
	__u32 tick = now();

	count(skb, pkt, flow, tick);
	if (flow->state & FLOW_LEAVES)
		return leave(skb, pkt, flow, tick);
	if (pkt->outer && unlikely(!decapsulate(skb, pkt)))
		return drop(skb, pkt, DROP_TUNNEL);
	if (pkt->origin == ORIGIN_ENDPOINT && flow->ifindex) {
		if (unlikely(pkt->ttl <= 1))
			return refuse(skb, pkt, 0);
		if (unlikely(!age(skb, pkt)))
			return drop(skb, pkt, DROP_REWRITE);
	}
	if (flow->state & FLOW_TRANSLATED && !pkt->error && unlikely(!translate(skb, pkt, flow)))
		return drop(skb, pkt, DROP_REWRITE);
	if (!flow->ifindex)
		return TCX_PASS;
	return deliver(skb, pkt, flow);
}

/* fresh tells whether an entry may be used as it is. What comes from outside ends at this node, and
 * what the host's stack has to see first cannot come from outside directly: such packets have a key
 * that is the host's, and are decided.
 */
static __always_inline bool fresh(const struct packet *pkt, const struct flow *flow)
{
	if (flow->generation != pkt->generation)
		return false;
	if (pkt->origin == ORIGIN_NETWORK)
		return !(flow->state & (FLOW_HOST | FLOW_LEAVES));
	if (pkt->origin == ORIGIN_TUNNEL)
		return flow->identity == pkt->identity && !(flow->state & FLOW_LEAVES);
	return true;
}

/* follow sends an ICMP error along the connection it is about. */
__global int follow(struct __sk_buff *skb, struct packet *pkt)
{
	struct flow *flow;

	if (!pkt)
		return TCX_DROP;
	flow = find_flow(&pkt->key);
	return flow ? send(skb, pkt, flow) : drop(skb, pkt, DROP_UNRELATED);
}

static __always_inline int handle_error(struct __sk_buff *skb, struct packet *pkt)
{
	enum drop_reason reason = relate(skb, pkt);

	/* Of what belongs to no endpoint the stack may know more. */
	if (reason == DROP_UNRELATED && pkt->origin == ORIGIN_NETWORK)
		return TCX_PASS;
	return reason ? drop(skb, pkt, reason) : follow(skb, pkt);
}

/* handle does with a parsed packet what its flow says. */
static __always_inline int handle(struct __sk_buff *skb, struct packet *pkt)
{
	struct flow *flow;
	enum tracked tracked = TRACKED;
	__u32 tried = 0;
	int verdict;

	if (unlikely(pkt->error))
		return handle_error(skb, pkt);
	flow = find_flow(&pkt->key);
	if (likely(flow) && unlikely(pkt->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) || (flow->state & (FLOW_REPLY | FLOW_REPLIED)) == FLOW_REPLY)) {
		tracked = track(pkt, flow);
		if (tracked == TRACKED_MOVED)
			flow = find_flow(&pkt->key);
	}
	if (unlikely(!flow || tracked == TRACKED_ANEW || !fresh(pkt, flow))) {
		do {
			verdict = decide(skb, pkt, flow && tracked != TRACKED_ANEW, tried++);
		} while (unlikely(verdict == DECIDE_AGAIN && tried < BACKEND_TRIES));
		if (verdict != DECIDED)
			return verdict;
		flow = find_flow(&pkt->key);
		if (!flow)
			return drop(skb, pkt, DROP_FLOWS_FULL);
	}
	return send(skb, pkt, flow);
}
