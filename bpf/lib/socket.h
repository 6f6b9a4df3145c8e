// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* Services at the calls of sockets: who connects or sends to a service is given a backend before
 * there is a packet, and is told the service's address when it asks who the other end is.
 */
#pragma once

#include "service.h"

/* The network namespaces whose sockets are served: the node's own, and, as the agent is set, those of
 * its endpoints.
 */
struct namespace {
	__u32 slot; /* of the endpoint; 0: the node */
	__u32 pad;
};
_Static_assert(sizeof(struct namespace) == 8, "layout of namespaces");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64); /* cookie of the namespace */
	__type(value, struct namespace);
	__uint(pinning, PIN_BY_NAME);
} namespaces SEC(".maps");

enum socket_address {
	SOCKET_BACKEND, /* the key is a backend's address, the value that of its service */
	SOCKET_SERVICE, /* the key is a service's address, the value that of its backend */
};

struct socket_key {
	__u64 cookie; /* of the socket, unique on the machine */
	__u8 address[16];
	__be16 port;
	__u16 kind; /* enum socket_address */
	__u32 pad;
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct socket_key) == 32, "layout of sockets");

struct socket_name {
	__u8 address[16];
	__be16 port;
	__u16 service; /* id */
	__u32 slot; /* of the backend */
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct socket_name) == 24, "layout of sockets");

/* What sockets were given. A row that was evicted costs a name: who asks is told the backend's. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct socket_key);
	__type(value, struct socket_name);
	__uint(pinning, PIN_BY_NAME);
} sockets SEC(".maps");

struct socket_count {
	__u64 translated; /* connects, and first datagrams to a service */
	__u64 refused; /* the service has no backend */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct socket_count);
	__uint(pinning, PIN_BY_NAME);
} socket_counts SEC(".maps");

static __always_inline void count_socket(bool refused)
{
	__u32 zero = 0;
	struct socket_count *counts = map_lookup(&socket_counts, &zero);

	if (!counts)
		return;
	if (refused)
		counts->refused += 1;
	else
		counts->translated += 1;
}

static __always_inline void socket_key(struct socket_key *to, __u64 cookie, const void *address, __be16 port, __u16 kind)
{
	to->cookie = cookie;
	copy_address(to->address, address);
	to->port = port;
	to->kind = kind;
	to->pad = 0;
}

/* remember writes a row of `sockets`. */
static __always_inline void remember(__u64 cookie, const void *address, __be16 port, __u16 kind, const void *other, __be16 other_port,
				     const struct backend_key *slot)
{
	struct socket_name name = {.port = other_port, .service = slot->service, .slot = slot->slot};
	struct socket_key key;

	socket_key(&key, cookie, address, port, kind);
	copy_address(name.address, other);
	map_update(&sockets, &key, &name, BPF_ANY);
}

/* find_name is what a socket was given for an address, NULL if nothing. */
static __always_inline struct socket_name *find_name(__u64 cookie, const void *address, __be16 port, __u16 kind)
{
	struct socket_key key;

	socket_key(&key, cookie, address, port, kind);
	return map_lookup(&sockets, &key);
}

static __always_inline bool is_name_of(const struct socket_name *name, const struct frontend_key *service)
{
	return name && name->port == service->port && same_address(name->address, service->address);
}

/* name_peer puts the service in the place of the backend that a socket was given for it. */
static __always_inline bool name_peer(struct bpf_sock_addr *ctx, struct frontend_key *peer)
{
	struct socket_name *name = find_name(socket_cookie(ctx), peer->address, peer->port, SOCKET_BACKEND);

	if (!name)
		return false;
	copy_address(peer->address, name->address);
	peer->port = name->port;
	return true;
}
