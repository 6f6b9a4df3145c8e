// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* Deciding: what happens to packets that no fresh entry answers. The result is two entries, or a
 * verdict for this packet alone.
 */
#pragma once

#include "backend.h"
#include "connection.h"
#include "end.h"
#include "runtime.h"

/* towards writes into a flow how its packets reach an end. */
static __always_inline void towards(struct flow *flow, const struct end *end)
{
	flow->ifindex = end->ifindex;
	if (!(end->state & FLOW_LEAVES))
		copy_mac(flow->mac, end->mac);
	flow->node = end->node;
	flow->state &= ~(FLOW_LEAVES | FLOW_TUNNEL);
	flow->state |= end->state & (FLOW_LEAVES | FLOW_TUNNEL);
	flow->route_until = now();
	flow->mtu = 0;
}

/* mirror makes the translation of the twin from the one of an entry. */
static __always_inline void mirror(struct flow *twin, const struct flow_key *key, const struct flow *flow)
{
	twin->state = ~flow->state & FLOW_REPLY;
	twin->state |= flow->state & (FLOW_REPLIED | FLOW_RESET | FLOW_LOOPBACK | FLOW_CLOSED | FLOW_REFUSED | FLOW_OPENED | FLOW_HOST);
	twin->state |= flow->state & FLOW_FIN ? FLOW_TWIN_FIN : 0;
	twin->state |= flow->state & FLOW_TWIN_FIN ? FLOW_FIN : 0;
	twin->service = flow->service;
	if (flow->state & FLOW_DESTINATION) {
		twin->state |= FLOW_SOURCE;
		copy_address(twin->address, key->destination);
		twin->port = key->destination_port;
	} else if (flow->state & FLOW_SOURCE) {
		twin->state |= FLOW_DESTINATION;
		copy_address(twin->address, key->source);
		twin->port = key->source_port;
	}
	twin->seen = flow->seen;
}

/* store writes an entry, in place if there is one: into flows_young when connections are to begin
 * there, else into flows, and into flows_young if that is full. It is in one table at a time.
 */
static __always_inline bool store(const struct flow_key *key, const struct flow *flow, struct settings *settings)
{
	bool young = settings->young && map_lookup(&flows_young, key);

	if (!young && !map_update(&flows, key, flow, settings->pressure ? BPF_EXIST : BPF_ANY))
		return true;
	if (!settings->young)
		settings->young = 1;
	return !map_update(&flows_young, key, flow, BPF_ANY);
}

/* forget takes an entry back that was stored a moment ago. */
static __always_inline void forget(const struct flow_key *key, const struct settings *settings)
{
	map_delete(&flows, key);
	if (settings->young)
		map_delete(&flows_young, key);
}

static __always_inline void report_new(const struct packet *pkt, const struct flow *flow, const struct flow *twin)
{
	struct flow_event *event;

	if (!report_events)
		return;
	event = begin_event(pkt, &pkt->key, EVENT_NEW);
	if (!event)
		return;
	if (flow->state & FLOW_DESTINATION) {
		copy_address(event->backend, flow->address);
		event->backend_port = flow->port;
	}
	event->service = flow->service;
	event->source_identity = flow->identity;
	event->destination_identity = twin->identity;
	event->destination_endpoint = endpoint_slot(flow->ifindex);
	event->node = flow->node ? flow->node : twin->node;
	end_event(event);
}

/* keep_other tells whether the twin's place is taken by another connection, one that differs only in
 * how it is translated: the client talks to the same backend from the same port directly, or through
 * another service. It keeps its entry, unless it is closing or was opened from the other side and never
 * answered: packets of a connection that was forgotten do that.
 */
static __always_inline bool keep_other(const struct flow_key *mine, const struct flow_key *key, const struct flow *there)
{
	const void *source = there->state & FLOW_SOURCE ? there->address : key->source;
	__be16 source_port = there->state & FLOW_SOURCE ? there->port : key->source_port;
	__be16 destination_port = there->state & FLOW_DESTINATION ? there->port : key->destination_port;

	if (!(there->state & (FLOW_REPLY | FLOW_REPLIED)) || there->state & FLOW_CLOSING)
		return false;
	/* Towards its own service an endpoint's source is the loopback address, as mine->destination is. */
	if (there->state & FLOW_LOOPBACK && there->state & FLOW_DESTINATION)
		source = mine->destination;
	return !same_address(new_destination(key, there), mine->source) || !same_address(source, mine->destination) ||
	       destination_port != mine->source_port || source_port != mine->destination_port;
}

/* decide makes the entries of the packet's connection, or, if `renew`, decides the existing ones
 * again. DECIDED: the packet's entry is in a table; DECIDE_AGAIN: another connection has the place of
 * the twin, and the service has more backends than the `tried` ones and this; anything else is the
 * packet's verdict.
 */
enum { DECIDED = -2, DECIDE_AGAIN = -3 };

/* More tries would help only clients with that many connections from one port to one service. */
enum { BACKEND_TRIES = 4 };

__global int decide(struct __sk_buff *skb, const struct packet *pkt, bool renew, __u32 tried)
{
	struct end sender = {}, receiver = {};
	struct flow flow = {}, twin = {};
	struct flow_key other;
	enum drop_reason reason;
	struct settings *settings;
	struct flow *there = NULL, *old = NULL;
	bool pass = false, known;
	__u32 left = 0;

	settings = read_settings();
	if (!pkt || !settings)
		return TCX_DROP;
	if (renew)
		old = find_flow(&pkt->key);
	if (old) {
		flow = *old;
	} else {
		flow.seen = now();
		if (is_multicast(&pkt->key)) {
			if (pkt->origin == ORIGIN_NETWORK)
				goto pass;
			reason = DROP_MULTICAST;
			goto refuse;
		}
		if ((pkt->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
			flow.state |= FLOW_OPENED;
		/* The last packets of a connection that was forgotten must not open one that lives long. */
		if (pkt->tcp_flags & TCP_RST)
			flow.state |= FLOW_RESET | FLOW_CLOSED;
		else if (pkt->tcp_flags & TCP_FIN)
			flow.state |= FLOW_FIN;
		if (pkt->origin == ORIGIN_ENDPOINT || pkt->origin == ORIGIN_HOST) {
			reason = choose_backend(&pkt->key, &flow, tried, &left);
			if (reason)
				goto refuse;
		}
	}
	reason = receiver_end(pkt, &flow, &receiver);
	if (reason) {
		/* Not ours to judge: it may be for a node behind this one. */
		if (pkt->origin == ORIGIN_NETWORK)
			goto pass;
		goto refuse;
	}
	reason = admissible(skb, pkt, &receiver, &pass);
	if (pass)
		goto pass;
	if (reason)
		goto refuse;
	reason = sender_end(pkt, &sender);
	if (reason)
		goto refuse;

	flow.generation = pkt->generation;
	flow.identity = sender.identity;
	flow.state |= sender.state & FLOW_HOST;
	/* The host's answers come from its stack: nobody outside may use their entry. */
	if (pkt->origin == ORIGIN_ENDPOINT && receiver.host)
		flow.state |= FLOW_HOST;
	towards(&flow, &receiver);
	twin_key(&other, &pkt->key, &flow);
	known = old || settings->young || settings->pressure;
	if (known)
		there = find_flow(&other);
	if (there && old)
		twin = *there;
	mirror(&twin, &pkt->key, &flow);
	twin.generation = pkt->generation;
	twin.identity = receiver.identity;
	towards(&twin, &sender);

	if (!store(&pkt->key, &flow, settings)) {
		reason = DROP_FLOWS_FULL;
		goto refuse;
	}
	/* The twin of a new connection hardly ever exists: it is looked for when it turns out to. */
	if (known || map_update(&flows, &other, &twin, BPF_NOEXIST)) {
		if (!known)
			there = find_flow(&other);
		if (!there || !keep_other(&pkt->key, &other, there)) {
			store(&other, &twin, settings);
		} else if (flow.state & FLOW_DESTINATION && !old) {
			/* Answers would not be translated. Of a connection that is in the middle only the hash
			 * knows the backend.
			 */
			bool opened = flow.state & FLOW_OPENED;

			if (left && tried + 1 < BACKEND_TRIES && (opened || pkt->key.protocol == IPPROTO_UDP))
				return DECIDE_AGAIN;
			/* A SYN comes again, and may find the other connection ended. Datagrams need no answer. */
			if (opened) {
				forget(&pkt->key, settings);
				reason = DROP_TAKEN;
				goto refuse;
			}
		}
	}
	if (!old)
		report_new(pkt, &flow, &twin);
	return DECIDED;
refuse:
	return drop(skb, pkt, reason);
pass:
	return TCX_PASS;
}
