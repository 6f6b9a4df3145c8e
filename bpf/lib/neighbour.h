// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Copyright The weft Authors

/* Questions of endpoints for the gateway's link address, answered in place. Endpoints have a
 * permanent entry for it; this is for those that flush it.
 */
#pragma once

#include "answer.h"
#include "config.h"
#include "endpoint.h"
#include "helpers.h"
#include "ipcache.h"
#include "packet.h"
#include "report.h"
#include "rewrite.h"
#include "tunnel.h"

enum { ARP_REQUEST = 1, ARP_REPLY = 2 };

/* answer_arp answers for the gateway's address. Answers to the host's questions are the host's. */
__global int answer_arp(struct __sk_buff *skb, const struct packet *pkt)
{
	struct ethernet *ethernet = header(skb, 0, ETHERNET + sizeof(struct arp));
	struct endpoint *endpoint;
	__u16 *from, *to;
	struct arp *arp;

	if (!pkt)
		return TCX_DROP;
	if (!ethernet)
		return drop(skb, pkt, DROP_MALFORMED);
	arp = (void *)(ethernet + 1);
	endpoint = lookup_endpoint(pkt->key.from);
	if (!endpoint)
		return drop(skb, pkt, DROP_ENDPOINT);
	from = (__u16 *)arp->sender;
	if (arp->operation == htons(ARP_REPLY)) {
		__u16 *own = (__u16 *)endpoint->ipv4;

		return from[0] == own[6] && from[1] == own[7] ? TCX_PASS : drop(skb, pkt, DROP_SOURCE);
	}
	to = (__u16 *)arp->target;
	if (arp->operation != htons(ARP_REQUEST) || arp->protocol != htons(ETH_P_IP) || to[0] != ((const volatile __u16 *)gateway_ipv4)[6] ||
	    to[1] != ((const volatile __u16 *)gateway_ipv4)[7])
		return drop(skb, pkt, DROP_PROTOCOL);
	copy_mac(ethernet->destination, arp->sender_mac);
	copy_gateway_mac(ethernet->source);
	arp->operation = htons(ARP_REPLY);
	copy_mac(arp->target_mac, arp->sender_mac);
	copy_gateway_mac(arp->sender_mac);
	to[0] = from[0];
	to[1] = from[1];
	from[0] = ((const volatile __u16 *)gateway_ipv4)[6];
	from[1] = ((const volatile __u16 *)gateway_ipv4)[7];
	return redirect_peer(skb->ifindex, 0);
}

struct advert {
	struct ipv6 ip;
	struct icmp icmp; /* id and sequence hold the flags */
	__u8 target[16];
	__u8 option; /* the sender's link address */
	__u8 units; /* of 8 bytes */
	__u8 mac[6];
};
_Static_assert(sizeof(struct advert) == 72, "protocol");

enum { ADVERT_FLAGS = 0xe000, ADVERT_TARGET_MAC = 2 };

/* pass_advert lets an endpoint answer the host about its own address. */
static __always_inline int pass_advert(struct __sk_buff *skb, const struct packet *pkt)
{
	struct endpoint *endpoint = lookup_endpoint(pkt->key.from);
	struct ipcache_entry *to;

	if (!endpoint)
		return drop(skb, pkt, DROP_ENDPOINT);
	if (!is_link_local(pkt->key.source) && !same_address(pkt->key.source, endpoint->ipv6))
		return drop(skb, pkt, DROP_SOURCE);
	if (is_link_local(pkt->key.destination))
		return TCX_PASS;
	to = lookup_ipcache(pkt->key.destination);
	return to && to->flags & IPCACHE_HOST ? TCX_PASS : drop(skb, pkt, DROP_MULTICAST);
}

/* answer_solicit answers for the gateway's address. Answers to the host's questions are the host's. */
__global int answer_solicit(struct __sk_buff *skb, const struct packet *pkt)
{
	struct advert advert = {};
	__u32 *target;

	if (!pkt)
		return TCX_DROP;
	if (pkt->icmp == ICMPV6_ADVERT)
		return pass_advert(skb, pkt);
	if (pkt->icmp != ICMPV6_SOLICIT || pkt->l4 != ETHERNET + sizeof(struct ipv6))
		return drop(skb, pkt, DROP_MULTICAST);
	target = header(skb, ETHERNET + sizeof(struct ipv6), 24);
	if (!target)
		return drop(skb, pkt, DROP_MALFORMED);
	copy_constant(advert.target, gateway_ipv6);
	if (!same_address(target + 2, advert.target) || !(words(pkt->key.source)[0] | words(pkt->key.source)[3]))
		return drop(skb, pkt, DROP_MULTICAST);
	advert.ip.version_class_label = htonl(0x60000000);
	advert.ip.length = htons(sizeof(advert) - sizeof(advert.ip));
	advert.ip.next = IPPROTO_ICMPV6;
	advert.ip.hop_limit = 255;
	copy_address(advert.ip.source, advert.target);
	copy_address(advert.ip.destination, pkt->key.source);
	advert.icmp.type = ICMPV6_ADVERT;
	advert.icmp.id = htons(ADVERT_FLAGS);
	advert.option = ADVERT_TARGET_MAC;
	advert.units = 1;
	((__u16 *)advert.mac)[0] = ((const volatile __u16 *)gateway_mac)[0];
	((__u16 *)advert.mac)[1] = ((const volatile __u16 *)gateway_mac)[1];
	((__u16 *)advert.mac)[2] = ((const volatile __u16 *)gateway_mac)[2];
	advert.icmp.checksum = pseudo_checksum(&advert.ip, sizeof(advert) - sizeof(advert.ip), IPPROTO_ICMPV6);
	if (skb_change_tail(skb, ETHERNET + sizeof(advert), 0) || skb_store(skb, ETHERNET, &advert, sizeof(advert), 0))
		return drop(skb, pkt, DROP_REWRITE);
	return return_to_sender(skb);
}
