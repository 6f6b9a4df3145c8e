//go:build ignore
// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* The object of all programs that packets meet, with the maps they share. */

#include "from_endpoint.c"
#include "from_host.c"
#include "from_netdev.c"
#include "from_overlay.c"
#include "to_endpoint.c"
#include "clock.c"

const char dual_license[] SEC("license") = "Dual BSD/GPL";

/* Never called and never loaded: it puts the enumerations that Go shares into the object's types. */
struct enumerations {
	enum flow_state flow_state;
	enum ipcache_flags ipcache_flags;
	enum identity identity;
	enum node_flags node_flags;
	enum drop_reason drop_reason;
	enum direction direction;
	enum event_kind event_kind;
};

static __attribute__((used)) void enumerations(struct enumerations *e)
{
}
