// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* Values of the node, set before the programs are loaded and constant from then on. What may
 * change without a load stands in the runtime map.
 */
#pragma once

#include "kernel.h"

/* The interface index of endpoint slot 0; the endpoint in slot n has the device base + n. */
volatile const __u32 endpoint_ifindex_base = 0x10000;

/* Number of endpoint slots, slot 0 included. */
volatile const __u32 endpoint_slots = 4096;

/* Ticks of the kernel's clock per second (CONFIG_HZ). */
volatile const __u32 ticks_per_second = 250;

/* The address of every host-side endpoint device: what endpoints send to. */
volatile const __u8 gateway_mac[6] = {0x02, 0x77, 0x65, 0x66, 0x74, 0x01};

/* The gateway's addresses, IPv4 as v4-mapped: 169.254.1.1 and fe80::1. */
volatile const __u8 gateway_ipv4[16] = {[10] = 0xff, 0xff, 169, 254, 1, 1};
volatile const __u8 gateway_ipv6[16] = {[0] = 0xfe, 0x80, [15] = 1};

/* The source that an endpoint sees when it reaches itself through a service. */
volatile const __u8 loopback_ipv4[16] = {[10] = 0xff, 0xff, 169, 254, 42, 1};
volatile const __u8 loopback_ipv6[16] = {[0] = 0xfd, 0x57, 0x65, 0x66, 0x74, [15] = 1};

/* UDP port of VXLAN packets, host order. */
volatile const __u16 tunnel_port = 8472;

/* Underlays that VXLAN packets may arrive by; without any, UDP to the port is the host's. */
volatile const bool tunnel_over_ipv4 = true;
volatile const bool tunnel_over_ipv6 = true;

/* Whether new, closed and refused flows are reported in the events map. */
volatile const bool report_events = true;
