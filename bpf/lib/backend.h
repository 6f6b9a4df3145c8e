// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* Choosing who answers for a service. */
#pragma once

#include "packet.h"
#include "service.h"

/* hash_key is a hash of a connection's tuple; `from` does not count. The steps are those of
 * murmur3 over nine words: four of each address, and both ports. The protocol is the seed.
 */
static __always_inline __u32 hash_word(__u32 hash, __u32 word)
{
	word *= 0xcc9e2d51;
	word = word << 15 | word >> 17;
	hash ^= word * 0x1b873593;
	hash = hash << 13 | hash >> 19;
	return hash * 5 + 0xe6546b64;
}

static __always_inline __u32 hash_key(const struct flow_key *key)
{
	__u32 hash = key->protocol;
	int i;

	for (i = 0; i < 4; i++)
		hash = hash_word(hash, words(key->source)[i]);
	for (i = 0; i < 4; i++)
		hash = hash_word(hash, words(key->destination)[i]);
	hash = hash_word(hash, (__u32)key->destination_port << 16 | key->source_port);
	hash ^= 36;
	hash ^= hash >> 16;
	hash *= 0x85ebca6b;
	hash ^= hash >> 13;
	hash *= 0xc2b2ae35;
	return hash ^ hash >> 16;
}

/* choose_backend writes the translation into a new flow if its destination is a service. `tried`
 * backends, those that the hash gives and the ones after it, could not be taken; `left` are there besides.
 */
static __always_inline enum drop_reason choose_backend(const struct flow_key *key, struct flow *flow, __u32 tried, __u32 *left)
{
	struct frontend_key wanted = {.port = key->destination_port, .protocol = key->protocol};
	struct backend_key slot;
	struct frontend *frontend;
	struct backend *backend;

	if (key->protocol != IPPROTO_TCP && key->protocol != IPPROTO_UDP && key->protocol != IPPROTO_SCTP)
		return DROP_NONE;
	copy_address(wanted.address, key->destination);
	frontend = map_lookup(&frontends, &wanted);
	if (!frontend)
		return DROP_NONE;
	if (!frontend->count)
		return DROP_NO_BACKEND;
	slot.service = frontend->service;
	slot.slot = ((__u64)hash_key(key) * frontend->count >> 32) + tried;
	if (slot.slot >= frontend->count)
		slot.slot -= frontend->count;
	*left = frontend->count - 1 - tried;
	backend = map_lookup(&backends, &slot);
	if (!backend)
		return DROP_NO_BACKEND;
	if (key->protocol == IPPROTO_SCTP && backend->port != key->destination_port)
		return DROP_BACKEND_PORT;
	flow->service = frontend->service;
	flow->state |= FLOW_DESTINATION;
	copy_address(flow->address, backend->address);
	flow->port = backend->port;
	if (same_address(backend->address, key->source))
		flow->state |= FLOW_LOOPBACK;
	return DROP_NONE;
}

/* is_service_address tells whether only services live at an address. */
static __always_inline bool is_service_address(const void *address)
{
	struct frontend_key key = {};

	copy_address(key.address, address);
	return map_lookup(&frontends, &key) != NULL;
}
