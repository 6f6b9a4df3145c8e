//go:build ignore
// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

#include "lib/device.h"
#include "lib/drop.h"
#include "lib/endpoint.h"
#include "lib/event.h"
#include "lib/flow.h"
#include "lib/fragment.h"
#include "lib/ipcache.h"
#include "lib/node.h"
#include "lib/protocol.h"
#include "lib/runtime.h"
#include "lib/service.h"

SEC("tc")
int from_overlay(struct skb *skb)
{
	return TCX_NEXT;
}
