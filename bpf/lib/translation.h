// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* What a flow turns the addresses and ports of its packets into. */
#pragma once

#include "config.h"
#include "endpoint.h"
#include "flow.h"

enum { FLOW_TRANSLATED = FLOW_SOURCE | FLOW_DESTINATION };

/* loopback_address is the source that an endpoint sees when it reaches itself through a service. */
static __always_inline void loopback_address(void *to, __u8 family)
{
	if (family == 4)
		copy_constant(to, loopback_ipv4);
	else
		copy_constant(to, loopback_ipv6);
}

/* translated is the key of a flow's packets after translation, with from unchanged.
 *
 * FLOW_LOOPBACK: towards the service the source becomes the loopback address besides, so that the
 * endpoint answers to it; the answer's destination becomes the answer's source, the endpoint's own
 * address, and its source becomes the service's.
 */
static __always_inline void translated(struct flow_key *to, const struct flow_key *key, const struct flow *flow)
{
	*to = *key;
	if (flow->state & FLOW_DESTINATION) {
		copy_address(to->destination, flow->address);
		to->destination_port = flow->port;
		if (flow->state & FLOW_LOOPBACK)
			loopback_address(to->source, key->family);
	} else if (flow->state & FLOW_SOURCE) {
		copy_address(to->source, flow->address);
		to->source_port = flow->port;
		if (flow->state & FLOW_LOOPBACK)
			copy_address(to->destination, key->source);
	}
}

/* new_destination is the destination alone of what translated() makes. */
static __always_inline const void *new_destination(const struct flow_key *key, const struct flow *flow)
{
	if (flow->state & FLOW_DESTINATION)
		return flow->address;
	return flow->state & FLOW_SOURCE && flow->state & FLOW_LOOPBACK ? key->source : key->destination;
}

/* reverse swaps source and destination. */
static __always_inline void reverse(struct flow_key *to, const struct flow_key *key, __u16 from)
{
	copy_address(to->source, key->destination);
	copy_address(to->destination, key->source);
	to->source_port = key->destination_port;
	to->destination_port = key->source_port;
	to->protocol = key->protocol;
	to->family = key->family;
	to->from = from;
}

/* twin_key is the key of the other direction: the translated key, reversed, from where the packets
 * of this direction go.
 */
__global int twin_key(struct flow_key *to, const struct flow_key *key, const struct flow *flow)
{
	if (!to || !key || !flow)
		return 0;
	copy_address(to->source, new_destination(key, flow));
	to->source_port = flow->state & FLOW_DESTINATION ? flow->port : key->destination_port;
	if (flow->state & FLOW_DESTINATION && flow->state & FLOW_LOOPBACK)
		loopback_address(to->destination, key->family);
	else
		copy_address(to->destination, flow->state & FLOW_SOURCE ? flow->address : key->source);
	to->destination_port = flow->state & FLOW_SOURCE ? flow->port : key->source_port;
	to->protocol = key->protocol;
	to->family = key->family;
	to->from = endpoint_slot(flow->ifindex);
	return 0;
}
