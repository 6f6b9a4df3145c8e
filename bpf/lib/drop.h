// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* Why packets are dropped, and how many. */
#pragma once

#include "helpers.h"

/* One line per reason: command line, metrics and docs/drops.md print these words. */
enum drop_reason {
	DROP_NONE, /* not dropped */
	DROP_MALFORMED, /* the headers are cut short or contradict each other */
	DROP_PROTOCOL, /* neither IPv4 nor IPv6 nor a question for the gateway's address */
	DROP_MAPPED, /* an IPv6 header carries an IPv4-mapped address */
	DROP_SOURCE, /* the source is not an address of the endpoint that sent it */
	DROP_MULTICAST, /* the destination is a multicast or broadcast address */
	DROP_ENDPOINT, /* the endpoint that sent it, or that it is for, has no row: it is being made or removed */
	DROP_FRAGMENT, /* a later fragment whose first was not seen */
	DROP_UNRELATED, /* an ICMP error that quotes no known connection */
	DROP_NO_SERVICE, /* the address is a service's, the port is not */
	DROP_NO_BACKEND, /* the service has no backend */
	DROP_BACKEND_PORT, /* the service would change a port of SCTP, whose checksum cannot be corrected */
	DROP_FLOWS_FULL, /* neither table of flows took the connection */
	DROP_NO_ROUTE, /* the node has no route to the destination or to its node */
	DROP_NODE, /* the destination's node has no row, or no address of the tunnel's family */
	DROP_TOO_BIG, /* larger than the path's MTU; the sender was told */
	DROP_TTL, /* its time to live is over; the sender was told */
	DROP_REWRITE, /* the kernel refused to change the packet */
	DROP_TUNNEL, /* the kernel refused to add or remove the tunnel's headers */
	DROP_REFUSED, /* policy refused the connection */
	DROP_TAKEN, /* the client has connections from the same port to all backends of the service that were tried */
	DROP_REASONS, /* number of reasons */
};

enum direction {
	DIRECTION_EGRESS, /* from an endpoint or from the host */
	DIRECTION_INGRESS, /* from the network, or from the host to an endpoint */
	DIRECTIONS, /* number of directions */
};

struct counter {
	__u64 packets;
	__u64 bytes;
};

/* Index: reason * DIRECTIONS + direction. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DROP_REASONS * DIRECTIONS);
	__type(key, __u32);
	__type(value, struct counter);
	__uint(pinning, PIN_BY_NAME);
} counters SEC(".maps");
