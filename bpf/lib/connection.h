// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* What entries remember of a TCP connection's life, and what moves them between the tables. */
#pragma once

#include "report.h"
#include "rewrite.h"
#include "runtime.h"

enum { FLOW_CLOSING = FLOW_FIN | FLOW_TWIN_FIN | FLOW_RESET };

/* report_closed sends the one event of a connection's end. `opener` is the entry of the direction
 * in which it was opened, whose CLOSED bit decides who sends it.
 */
static __always_inline void report_closed(const struct packet *pkt, const struct flow_key *key, struct flow *opener, struct flow *other)
{
	struct flow_event *event;

	set_state(other, FLOW_CLOSED);
	if (set_state(opener, FLOW_CLOSED) & FLOW_CLOSED)
		return;
	if (!report_events)
		return;
	event = begin_event(pkt, key, EVENT_CLOSED);
	if (!event)
		return;
	if (opener->state & FLOW_DESTINATION) {
		copy_address(event->backend, opener->address);
		event->backend_port = opener->port;
	}
	event->service = opener->service;
	event->source_identity = opener->identity;
	event->destination_identity = other->identity;
	event->destination_endpoint = endpoint_slot(opener->ifindex);
	event->node = opener->node ? opener->node : other->node;
	event->packets = opener->packets;
	event->bytes = opener->bytes;
	event->reply_packets = other->packets;
	event->reply_bytes = other->bytes;
	end_event(event);
}

/* promote moves an entry from flows_young to flows, where nothing evicts it.
 */
static __always_inline void promote(const struct flow_key *key)
{
	struct flow *young = map_lookup(&flows_young, key);

	if (young && !map_update(&flows, key, young, BPF_NOEXIST))
		map_delete(&flows_young, key);
}

enum tracked {
	TRACKED, /* the entry stays where it is */
	TRACKED_MOVED, /* the entry may be in the other table now */
	TRACKED_ANEW, /* a SYN begins a new connection where the old one was closing */
};

/* track is called for the first reply of a connection and for SYN, FIN and RST. */
__global enum tracked track(const struct packet *pkt, struct flow *flow)
{
	enum tracked result = TRACKED;
	struct settings *settings;
	struct flow_key key;
	struct flow *twin;

	if (!pkt || !flow)
		return TRACKED_MOVED;
	if ((pkt->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && flow->state & FLOW_CLOSING)
		return TRACKED_ANEW;
	/* A repeated SYN changes nothing. */
	if (pkt->tcp_flags & TCP_SYN && (flow->state & (FLOW_REPLY | FLOW_REPLIED)) != FLOW_REPLY && !(pkt->tcp_flags & (TCP_FIN | TCP_RST)))
		return TRACKED;
	twin_key(&key, &pkt->key, flow);
	twin = find_flow(&key);
	if ((flow->state & (FLOW_REPLY | FLOW_REPLIED)) == FLOW_REPLY) {
		set_state(flow, FLOW_REPLIED);
		if (twin)
			set_state(twin, FLOW_REPLIED);
		settings = read_settings();
		if (settings && settings->young) {
			promote(&key);
			promote(&pkt->key);
			twin = find_flow(&key);
			flow = find_flow(&pkt->key);
			result = TRACKED_MOVED;
			if (!flow)
				return result;
		}
	}
	if (!(pkt->tcp_flags & (TCP_FIN | TCP_RST)))
		return result;
	set_state(flow, pkt->tcp_flags & TCP_RST ? FLOW_RESET : FLOW_FIN);
	if (!twin)
		return result;
	set_state(twin, pkt->tcp_flags & TCP_RST ? FLOW_RESET : FLOW_TWIN_FIN);
	if (!(flow->state & FLOW_RESET) && (flow->state & (FLOW_FIN | FLOW_TWIN_FIN)) != (FLOW_FIN | FLOW_TWIN_FIN))
		return result;
	if (flow->state & FLOW_REPLY)
		report_closed(pkt, &key, twin, flow);
	else
		report_closed(pkt, &pkt->key, flow, twin);
	return result;
}
