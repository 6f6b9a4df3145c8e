// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* Reporting: events of flows, counting of drops. */
#pragma once

#include "config.h"
#include "drop.h"
#include "event.h"
#include "packet.h"

static __always_inline void lose_event(void)
{
	__u32 zero = 0;
	__u64 *lost = map_lookup(&events_lost, &zero);

	if (lost)
		*lost += 1;
}

/* begin_event reserves an event about the connection of a key; NULL when the buffer is full. */
static __always_inline struct flow_event *begin_event(const struct packet *pkt, const struct flow_key *key, enum event_kind kind)
{
	struct flow_event *event = ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		lose_event();
		return NULL;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->time = coarse_ns();
	copy_address(event->source, key->source);
	copy_address(event->destination, key->destination);
	event->source_port = key->source_port;
	event->destination_port = key->destination_port;
	event->source_endpoint = key->from;
	event->protocol = key->protocol;
	event->family = key->family;
	event->kind = kind;
	event->direction = pkt->direction;
	event->tcp_flags = pkt->tcp_flags;
	return event;
}

/* end_event hands the event over. A wake-up of the reader costs 10 us, so there is one only at the
 * moment when the buffer becomes half full; else it polls.
 */
static __always_inline void end_event(struct flow_event *event)
{
	__u64 half = ringbuf_query(&events, BPF_RB_RING_SIZE) / 2;
	__u64 waiting = ringbuf_query(&events, BPF_RB_AVAIL_DATA);
	__u64 flags = BPF_RB_NO_WAKEUP;

	/* A record has eight bytes of its own. */
	if (unlikely(waiting >= half && waiting < half + sizeof(*event) + 8))
		flags = BPF_RB_FORCE_WAKEUP;
	ringbuf_submit(event, flags);
}

/* drop counts, reports and returns the verdict. */
__global int drop(struct __sk_buff *skb, const struct packet *pkt, enum drop_reason reason)
{
	struct flow_event *event;
	struct counter *counter;
	__u32 index;

	if (!pkt)
		return TCX_DROP;
	index = reason * DIRECTIONS + pkt->direction;
	counter = map_lookup(&counters, &index);
	if (counter) {
		counter->packets += 1;
		counter->bytes += skb->len;
	}
	if (!report_events)
		return TCX_DROP;
	event = begin_event(pkt, &pkt->key, EVENT_REFUSED);
	if (event) {
		event->reason = reason;
		event->source_identity = pkt->identity;
		end_event(event);
	}
	return TCX_DROP;
}
