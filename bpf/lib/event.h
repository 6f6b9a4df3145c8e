// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* What the datapath reports of flows: new, closed, refused. Never one event per packet. */
#pragma once

#include "config.h"
#include "helpers.h"

enum event_kind {
	EVENT_NEW = 1, /* a connection was decided and its entries were created */
	EVENT_CLOSED = 2, /* TCP: both ends sent FIN, or one sent RST */
	EVENT_REFUSED = 3, /* a packet was dropped; reason says why */
};

/* Source and destination are those of the connection's opener, before translation. */
struct flow_event {
	__u64 time; /* CLOCK_MONOTONIC_COARSE, ns: exact to a tick, and in order in the buffer */
	__u8 source[16];
	__u8 destination[16];
	__u8 backend[16]; /* the translated destination; zero: not translated */
	__be16 source_port;
	__be16 destination_port;
	__be16 backend_port;
	__u16 service;
	__u32 source_identity;
	__u32 destination_identity;
	__u16 source_endpoint; /* slot of the source on this node, 0: not here */
	__u16 destination_endpoint; /* slot of the destination on this node, 0: not here */
	__u8 protocol;
	__u8 family; /* 4 or 6 */
	__u8 kind; /* enum event_kind */
	__u8 reason; /* enum drop_reason */
	__u8 direction; /* enum direction */
	__u8 tcp_flags; /* of the packet that caused the event */
	__u16 node; /* index of the peer's node, 0: none known */
	__u32 packets; /* closed: from the opener */
	__u32 reply_packets; /* closed: to the opener */
	__u32 pad;
	__u64 bytes; /* closed: from the opener */
	__u64 reply_bytes; /* closed: to the opener */
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct flow_event) == 112, "layout of events");

/* The reader polls: a wake-up costs 10 us, an event 0.02. It is woken only when the buffer is
 * half full.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4194304);
	__type(value, struct flow_event);
	__uint(pinning, PIN_BY_NAME);
} events SEC(".maps");

/* Events that found the buffer full. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, PIN_BY_NAME);
} events_lost SEC(".maps");
