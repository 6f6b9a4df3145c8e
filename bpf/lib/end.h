// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* The two ends of a connection: who they are, how packets reach them, and whether they may. */
#pragma once

#include "backend.h"
#include "endpoint.h"
#include "ipcache.h"
#include "node.h"
#include "rewrite.h"
#include "tunnel.h"

/* One end of a connection: who it is and how packets reach it. */
struct end {
	__u32 identity;
	__u32 ifindex; /* 0: the host's stack, or a route */
	__u8 mac[6];
	__u16 state; /* of the flow towards it: FLOW_LEAVES, FLOW_TUNNEL, FLOW_HOST */
	__u16 node;
	bool host; /* an address of this node */
};

static __always_inline enum drop_reason local_end(struct end *end, __u32 slot)
{
	struct endpoint *endpoint = lookup_endpoint(slot);

	if (!endpoint)
		return DROP_ENDPOINT;
	end->identity = endpoint->identity;
	end->ifindex = endpoint_ifindex(slot);
	copy_mac(end->mac, endpoint->mac);
	return DROP_NONE;
}

static __always_inline bool is_zero(const void *address)
{
	return !(words(address)[0] | words(address)[1] | words(address)[2] | words(address)[3]);
}

/* remote_end finds out how the endpoints behind a node are reached. */
static __always_inline enum drop_reason remote_end(struct end *end, __u32 index)
{
	struct node *node = lookup_node(index);
	struct node *self = lookup_node(0);
	bool ipv6;

	if (!node || !self || index > 65535)
		return DROP_NODE;
	ipv6 = node->flags & NODE_IPV6;
	end->node = index;
	end->state |= FLOW_LEAVES;
	/* Row 0 is this node: the routes know the way. */
	if (!index)
		return DROP_NONE;
	if (!(node->flags & NODE_TUNNEL))
		return DROP_NONE;
	if (is_zero(ipv6 ? node->ipv6 : node->ipv4) || is_zero(ipv6 ? self->ipv6 : self->ipv4))
		return DROP_NODE;
	end->state |= FLOW_TUNNEL;
	return DROP_NONE;
}

/* find_end looks up whose an address is. What nobody knows is the world's. */
__global enum drop_reason find_end(struct end *end, const struct address_key *address)
{
	struct ipcache_entry *row;

	if (!end || !address)
		return DROP_MALFORMED;
	row = lookup_ipcache(address->address);
	end->identity = IDENTITY_WORLD;
	if (!row)
		return DROP_NONE;
	end->identity = row->identity;
	if (row->endpoint)
		return local_end(end, row->endpoint);
	if (row->flags & IPCACHE_HOST) {
		end->host = true;
		return DROP_NONE;
	}
	if (row->node || row->flags & IPCACHE_NODE || is_cluster_identity(row->identity))
		return remote_end(end, row->node);
	return DROP_NONE;
}

static __always_inline bool is_multicast(const struct flow_key *key)
{
	__be32 last = words(key->destination)[3];

	if (key->family == 6)
		return key->destination[0] == 0xff;
	return (last & htonl(0xf0000000)) == htonl(0xe0000000) || last == 0xffffffff || last == 0;
}

/* sender_end is the end a packet came from, and checks that it may use its source address. */
static __always_inline enum drop_reason sender_end(const struct packet *pkt, struct end *end)
{
	const struct flow_key *key = &pkt->key;
	enum drop_reason reason;
	struct endpoint *endpoint;

	if (pkt->origin == ORIGIN_ENDPOINT) {
		endpoint = lookup_endpoint(key->from);
		if (!endpoint)
			return DROP_ENDPOINT;
		if (is_zero(key->source) || !same_address(key->source, key->family == 4 ? endpoint->ipv4 : endpoint->ipv6))
			return DROP_SOURCE;
		return local_end(end, key->from);
	}
	reason = find_end(end, (const void *)key->source);
	if (pkt->origin == ORIGIN_STACK || pkt->origin == ORIGIN_HOST) {
		end->ifindex = 0;
		end->node = 0;
		end->state = FLOW_HOST;
		return DROP_NONE;
	}
	/* From outside nobody speaks for this node or its endpoints. */
	if (end->host || end->ifindex)
		return DROP_SOURCE;
	if (pkt->origin == ORIGIN_TUNNEL)
		end->identity = pkt->identity;
	return reason;
}

/* receiver_end is the end a flow's packets go to. */
static __always_inline enum drop_reason receiver_end(const struct packet *pkt, const struct flow *flow, struct end *end)
{
	enum drop_reason reason = find_end(end, new_destination(&pkt->key, flow));

	if (reason)
		return reason;
	/* The other end came through the host's stack, which may translate it once more. Answers of the
	 * world may come through it, too: those go to the endpoint.
	 */
	if (pkt->origin == ORIGIN_ENDPOINT && flow->state & FLOW_HOST && flow->state & FLOW_REPLY) {
		end->ifindex = 0;
		end->state = 0;
		end->node = 0;
		end->host = true;
	}
	return DROP_NONE;
}

/* admissible checks that a program may send to an end. TCX_PASS: the stack has to look at it. */
static __always_inline enum drop_reason admissible(struct __sk_buff *skb, const struct packet *pkt, const struct end *to, bool *pass)
{
	switch (pkt->origin) {
	case ORIGIN_ENDPOINT:
		if (!to->ifindex && !to->state && !to->host && is_service_address(pkt->key.destination))
			return DROP_NO_SERVICE;
		return DROP_NONE;
	case ORIGIN_NETWORK:
		*pass = !to->ifindex;
		return DROP_NONE;
	case ORIGIN_TUNNEL:
		return to->ifindex || to->host ? DROP_NONE : DROP_ENDPOINT;
	case ORIGIN_STACK:
		return to->ifindex == skb->ifindex ? DROP_NONE : DROP_ENDPOINT;
	default:
		if (!to->ifindex && !to->state)
			return is_service_address(pkt->key.destination) ? DROP_NO_SERVICE : DROP_NO_ROUTE;
		return DROP_NONE;
	}
}
