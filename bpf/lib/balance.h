// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* Putting a backend in the place of a service that a socket connects or sends to. */
#pragma once

#include "service.h"
#include "socket.h"

/* backend_at is the backend in a slot, if it is of the service's family: a socket cannot change its own. */
static __always_inline struct backend *backend_at(const struct backend_key *slot, const struct frontend_key *service)
{
	struct backend *backend = map_lookup(&backends, slot);

	return backend && is_mapped(backend->address) == is_mapped(service->address) ? backend : NULL;
}

/* More tries would help only who sends to that many services with the same backends. */
enum { SOCKET_TRIES = 4 };

/* choose_anew takes any backend. A socket that sends to many tells their answers apart by the backend:
 * one that it knows by another service's name is taken only if there is no other.
 */
static __always_inline struct backend *choose_anew(__u64 cookie, const struct frontend_key *service, __u32 count,
						   struct backend_key *slot, bool sends)
{
	struct socket_name *name;
	struct backend *backend;
	__u32 i;

	slot->slot = (__u64)random_u32() * count >> 32;
	backend = backend_at(slot, service);
	for (i = 1; sends && backend && i < SOCKET_TRIES && i < count; i++) {
		name = find_name(cookie, backend->address, backend->port, SOCKET_BACKEND);
		if (!name || is_name_of(name, service))
			break;
		slot->slot = slot->slot + 1 < count ? slot->slot + 1 : 0;
		backend = backend_at(slot, service);
	}
	return backend;
}

/* given is the backend that an unconnected socket has been sending to, as long as its slot has it. */
static __always_inline struct backend *given(__u64 cookie, const struct frontend_key *service, struct backend_key *slot)
{
	struct socket_name *name = find_name(cookie, service->address, service->port, SOCKET_SERVICE);
	struct backend *backend;

	if (!name || name->service != slot->service)
		return NULL;
	slot->slot = name->slot;
	backend = map_lookup(&backends, slot);
	return backend && backend->port == name->port && same_address(backend->address, name->address) ? backend : NULL;
}

enum balanced {
	BALANCED_NOT, /* no service, or not for us to translate */
	BALANCED, /* the address is a backend's now */
	BALANCED_REFUSED, /* nobody answers: the call fails at once */
};

/* balance puts a backend in the place of a service. `sends`: for one datagram of a socket that may send
 * to anybody, and whose datagrams to one service go to one backend.
 */
static __always_inline enum balanced balance(struct bpf_sock_addr *ctx, struct frontend_key *to, bool sends)
{
	struct frontend *frontend = map_lookup(&frontends, to);
	struct backend *backend = NULL;
	struct backend_key slot;
	__u64 cookie;
	bool known;

	if (!frontend)
		return BALANCED_NOT;
	cookie = netns_cookie(ctx);
	if (!map_lookup(&namespaces, &cookie))
		return BALANCED_NOT;
	if (!frontend->count) {
		count_socket(true);
		set_retval(-ECONNREFUSED);
		return BALANCED_REFUSED;
	}
	cookie = socket_cookie(ctx);
	slot.service = frontend->service;
	if (sends)
		backend = given(cookie, to, &slot);
	known = backend;
	if (!known)
		backend = choose_anew(cookie, to, frontend->count, &slot, sends);
	/* Between two rows of a change, or of the other family: the packets are translated. */
	if (!backend)
		return BALANCED_NOT;
	if (!known)
		count_socket(false);
	if (sends && !known)
		remember(cookie, to->address, to->port, SOCKET_SERVICE, backend->address, backend->port, &slot);
	/* Of two services with one backend the name is that of who was asked last. */
	if (!known || !is_name_of(find_name(cookie, backend->address, backend->port, SOCKET_BACKEND), to))
		remember(cookie, backend->address, backend->port, SOCKET_BACKEND, to->address, to->port, &slot);
	copy_address(to->address, backend->address);
	to->port = backend->port;
	return BALANCED;
}
