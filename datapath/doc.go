// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package datapath makes the kernel of one node do what the tables say: it is the only Go code of
// weft that creates devices, routes and neighbours, writes sysctls, loads and attaches programs and
// writes BPF maps. It decides nothing: identities, services and rows come from tables, and what a
// row means for the kernel is a pure function.
//
// [Datapath.Run] takes over what an earlier run left pinned below <bpffs>/weft/<node> and changes
// only the difference; nothing is detached when it returns, so packets flow without an agent.
// [Cleanup] removes everything of a node, [OpenMaps] reads the pinned maps without an agent.
//
// # Marks
//
// weft uses no bit of the packet mark, neither to remember nor to route: 0 of 32 bits. A program of
// weft keeps the marks that others set, and scrubs them where a packet enters an endpoint's
// namespace, as the kernel does.
//
// # Routes
//
// Routes of weft carry the route protocol number [RouteProtocol], so that they are told from
// others' in `ip route` and in Cleanup.
//
// Package agent imports it; so do the CLI (maps, cleanup) and the lab's tests.
package datapath
