// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* The flow table: conntrack and cache at once.
 *
 * A connection has two entries on a node, one per direction, created together. Each holds all that
 * its packets need, so a packet costs one lookup. The key of the twin follows from key and value
 * (twin_key in translation.h): source and destination swapped with the translation applied, and `from`
 * the slot of the endpoint that the packets go to.
 */
#pragma once

#include "address.h"
#include "helpers.h"
#include "kernel.h"
#include "runtime.h"

struct flow_key {
	__u8 source[16];
	__u8 destination[16];
	__be16 source_port; /* ICMP echo request: its id; reply: 0; no ports: 0 */
	__be16 destination_port; /* ICMP echo reply: its id; request: 0; no ports: 0 */
	__u8 protocol; /* IPPROTO_* */
	__u8 family; /* 4 or 6 */
	__u16 from; /* slot of the endpoint that sent the packet; 0: network or host */
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct flow_key) == 40, "layout of flows");

enum flow_state {
	FLOW_REPLY = 1 << 0, /* packets go against the direction in which the connection was opened */
	FLOW_REPLIED = 1 << 1, /* the other direction was seen; set in both entries */
	FLOW_FIN = 1 << 2, /* TCP: this direction sent FIN */
	FLOW_TWIN_FIN = 1 << 3, /* TCP: the other direction sent FIN */
	FLOW_RESET = 1 << 4, /* TCP: either direction sent RST */
	FLOW_SOURCE = 1 << 5, /* the source becomes address:port */
	FLOW_DESTINATION = 1 << 6, /* the destination becomes address:port */
	FLOW_LOOPBACK = 1 << 7, /* an endpoint reaches itself through a service; see translation.h */
	FLOW_TUNNEL = 1 << 8, /* leaves the node in VXLAN, to node */
	FLOW_LEAVES = 1 << 9, /* leaves the node through a native device: route_until, mac and mtu count */
	FLOW_CLOSED = 1 << 10, /* the closed event was sent */
	FLOW_REFUSED = 1 << 11, /* the connection was allowed and is not any more: packets are dropped */
	FLOW_OPENED = 1 << 12, /* TCP: begun by a SYN that this node saw */
	FLOW_HOST = 1 << 13, /* the end that is no endpoint here is reached through the host's stack, whatever its address */
};

struct flow {
	__u32 generation; /* of the node's rows when the entry was decided */
	__u32 seen; /* jiffies (low 32 bits) of the last packet */
	__u32 route_until; /* jiffies until which mac and mtu hold; only with FLOW_LEAVES */
	__u32 identity; /* of the source; packets from the tunnel must carry it as VNI */
	__u32 ifindex; /* device the packets leave by; 0: the host's stack */
	__u8 mac[6]; /* of the next hop */
	__u16 state; /* enum flow_state */
	__u8 address[16]; /* new source or destination */
	__be16 port; /* new source or destination port */
	__u16 service; /* id of the service, 0: none */
	__u16 node; /* index into nodes of the peer's node; 0: none known */
	__u16 mtu; /* of the path, for the packet inside the tunnel */
	__u32 packets; /* GSO segments counted one by one; wraps */
	__u64 bytes; /* from the IP header on */
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct flow) == 64, "layout of flows");

/* Never evicts. When the agent signals pressure, or when it is full, connections begin in
 * flows_young and move here with their first reply.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 524288);
	__type(key, struct flow_key);
	__type(value, struct flow);
	__uint(pinning, PIN_BY_NAME);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct flow);
	__uint(pinning, PIN_BY_NAME);
} flows_young SEC(".maps");

/* find_flow looks in flows, and in flows_young if it may hold anything. */
static __always_inline struct flow *find_flow(const struct flow_key *key)
{
	struct flow *flow = map_lookup(&flows, key);
	struct settings *settings;

	if (likely(flow))
		return flow;
	settings = read_settings();
	return settings && settings->young ? map_lookup(&flows_young, key) : NULL;
}

/* set_state sets bits of a state that other processors may be changing. There are no atomic
 * operations on 16 bits, so it is done on the 32 that end the next hop's address.
 */
static __always_inline __u16 set_state(struct flow *flow, __u16 bits)
{
	return __sync_fetch_and_or((__u32 *)&flow->mac[4], (__u32)bits << 16) >> 16;
}
_Static_assert(__builtin_offsetof(struct flow, state) == __builtin_offsetof(struct flow, mac) + 6, "set_state");
