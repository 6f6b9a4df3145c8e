//go:build ignore
// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* What sockets ask the kernel for: to connect, to send a datagram to an address, who a datagram is from,
 * who the other end is. An object of its own: a node that does not use it does not load it.
 *
 * An IPv6 socket names IPv4 addresses as v4-mapped, as the maps do: it needs no case of its own.
 */
#include "lib/balance.h"
#include "lib/protocol.h"

static __always_inline void address4(struct frontend_key *to, const struct bpf_sock_addr *ctx)
{
	set_mapped(to->address, ctx->user_ip4);
	to->port = ctx->user_port;
	to->protocol = ctx->protocol;
	to->pad = 0;
}

static __always_inline void address6(struct frontend_key *to, const struct bpf_sock_addr *ctx)
{
	words(to->address)[0] = ctx->user_ip6[0];
	words(to->address)[1] = ctx->user_ip6[1];
	words(to->address)[2] = ctx->user_ip6[2];
	words(to->address)[3] = ctx->user_ip6[3];
	to->port = ctx->user_port;
	to->protocol = ctx->protocol;
	to->pad = 0;
}

static __always_inline void set_address4(struct bpf_sock_addr *ctx, const struct frontend_key *from)
{
	ctx->user_ip4 = words(from->address)[3];
	ctx->user_port = from->port;
}

static __always_inline void set_address6(struct bpf_sock_addr *ctx, const struct frontend_key *from)
{
	ctx->user_ip6[0] = words(from->address)[0];
	ctx->user_ip6[1] = words(from->address)[1];
	ctx->user_ip6[2] = words(from->address)[2];
	ctx->user_ip6[3] = words(from->address)[3];
	ctx->user_port = from->port;
}

/* connects translates a connect. A datagram socket may connect many times: a peer that it reaches
 * directly now must not keep the name of a service by which it was reached before.
 */
static __always_inline enum balanced connects(struct bpf_sock_addr *ctx, struct frontend_key *to)
{
	enum balanced result = balance(ctx, to, false);
	struct socket_key key;

	if (result == BALANCED_NOT && to->protocol == IPPROTO_UDP) {
		socket_key(&key, socket_cookie(ctx), to->address, to->port, SOCKET_BACKEND);
		map_delete(&sockets, &key);
	}
	return result;
}

SEC("cgroup/connect4")
int sock_connect4(struct bpf_sock_addr *ctx)
{
	struct frontend_key to;
	enum balanced result;

	address4(&to, ctx);
	result = connects(ctx, &to);
	if (result == BALANCED)
		set_address4(ctx, &to);
	return result == BALANCED_REFUSED ? SOCKET_REFUSE : SOCKET_PROCEED;
}

SEC("cgroup/connect6")
int sock_connect6(struct bpf_sock_addr *ctx)
{
	struct frontend_key to;
	enum balanced result;

	address6(&to, ctx);
	result = connects(ctx, &to);
	if (result == BALANCED)
		set_address6(ctx, &to);
	return result == BALANCED_REFUSED ? SOCKET_REFUSE : SOCKET_PROCEED;
}

SEC("cgroup/sendmsg4")
int sock_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct frontend_key to;
	enum balanced result;

	address4(&to, ctx);
	result = balance(ctx, &to, true);
	if (result == BALANCED)
		set_address4(ctx, &to);
	return result == BALANCED_REFUSED ? SOCKET_REFUSE : SOCKET_PROCEED;
}

SEC("cgroup/sendmsg6")
int sock_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct frontend_key to;
	enum balanced result;

	address6(&to, ctx);
	result = balance(ctx, &to, true);
	if (result == BALANCED)
		set_address6(ctx, &to);
	return result == BALANCED_REFUSED ? SOCKET_REFUSE : SOCKET_PROCEED;
}

SEC("cgroup/recvmsg4")
int sock_recvmsg4(struct bpf_sock_addr *ctx)
{
	struct frontend_key peer;

	address4(&peer, ctx);
	if (name_peer(ctx, &peer))
		set_address4(ctx, &peer);
	return SOCKET_PROCEED;
}

SEC("cgroup/recvmsg6")
int sock_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct frontend_key peer;

	address6(&peer, ctx);
	if (name_peer(ctx, &peer))
		set_address6(ctx, &peer);
	return SOCKET_PROCEED;
}

SEC("cgroup/getpeername4")
int sock_getpeername4(struct bpf_sock_addr *ctx)
{
	struct frontend_key peer;

	address4(&peer, ctx);
	if (name_peer(ctx, &peer))
		set_address4(ctx, &peer);
	return SOCKET_PROCEED;
}

SEC("cgroup/getpeername6")
int sock_getpeername6(struct bpf_sock_addr *ctx)
{
	struct frontend_key peer;

	address6(&peer, ctx);
	if (name_peer(ctx, &peer))
		set_address6(ctx, &peer);
	return SOCKET_PROCEED;
}

/* Never called and never loaded: it puts the enumeration that Go shares into the object's types. */
struct socket_enumerations {
	enum socket_address socket_address;
};

static __attribute__((used)) void socket_enumerations(struct socket_enumerations *e)
{
}

const char dual_license[] SEC("license") = "Dual BSD/GPL";
