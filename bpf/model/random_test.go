// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/bpf/model"
)

// dice throws steps.
type dice struct {
	*rand.Rand
	g      *game
	firsts *[]first // fragments that were sent
}

// first is the first fragment of a datagram.
type first struct {
	f       frame
	program model.Program
	slot    int
	tunnel  bool
}

func pick[T any](d dice, of ...T) T { return of[d.IntN(len(of))] }

func (d dice) one(in int) bool { return d.IntN(in) == 0 }

// step is the next thing to happen. Most packets belong to connections that there are.
func (d dice) step() step {
	switch n := d.IntN(100); {
	case n < 45:
		if s, ok := d.continued(); ok {
			return s
		}
		return d.fresh()
	case n < 65:
		return d.fresh()
	case n < 78:
		return d.call()
	case n < 80:
		return d.rest()
	case n < 90:
		return d.change()
	case n < 94:
		return raise()
	case n < 96:
		return d.question()
	}
	return pass(uint32(pick(d, 1, 10, 249, 250, 1000)))
}

func (d dice) family() uint8 { return pick[uint8](d, 4, 6) }

func (d dice) port() uint16 { return pick[uint16](d, 1000, 1000, 1001, 80, 8080) }

// anybody is an address of anyone.
func (d dice) anybody(family uint8) netip.Addr {
	switch n := d.IntN(20); {
	case n < 4:
		return endpointAddr(1+d.IntN(endpoints), family)
	case n < 10:
		return podAddr(2+d.IntN(5), 1+d.IntN(2), family)
	case n < 15:
		return podAddr(7, 1+d.IntN(5), family)
	case n < 17:
		return nodeAddr(1+d.IntN(4), family)
	case n < 18:
		return podAddr(8, 1, family)
	case family == 4:
		return pick(d, v4("192.0.2.1"), v4("224.0.0.1"), v4("255.255.255.255"), v4("169.254.42.1"), v4("10.2.0.9"))
	}
	return pick(d, v4("2001:db8::1"), v4("ff02::1"), v4("fd57:6566:7400::1"), v4("fd02::9"))
}

// content fills in everything but the addresses.
func (d dice) content(f *frame) {
	f.ttl = pick[uint8](d, 64, 64, 64, 64, 64, 2, 1)
	f.sport, f.dport = d.port(), d.port()
	size := pick(d, 0, 1, 7, 20, 100, 100, 1270, 1300, 1372, 1400, 1460)
	f.payload = make([]byte, size)
	for i := range f.payload {
		f.payload[i] = byte(d.Uint32())
	}
	f.proto = pick[uint8](d, tcp, tcp, tcp, udp, udp, 0, sctp, 47)
	if f.proto == 0 {
		f.proto, f.kind = icmp4, pick[byte](d, 8, 8, 0, 13)
		if !f.is4() {
			f.proto, f.kind = icmp6, pick[byte](d, 128, 128, 129, 200)
		}
	}
	f.flags = pick[byte](d, syn, syn, syn, syn|ack, ack, ack, ack, fin|ack, rst, rst|ack)
	f.noChecksum = f.proto == udp && f.is4() && d.one(4)
	if d.one(12) {
		f.options = 8
	}
	if d.one(10) {
		f.id = uint32(d.IntN(3))
		f.payload = f.payload[:len(f.payload)&^7]
		switch d.IntN(3) {
		case 0:
			f.more = true
		case 1:
			f.offset, f.more = 10, true
		case 2:
			f.offset = 20
		}
	}
}

// fresh is a packet of anybody to anybody.
func (d dice) fresh() step {
	family := d.family()
	var f frame
	f.dst = d.anybody(family)
	program := pick(d, model.FromEndpoint, model.FromEndpoint, model.FromEndpoint, model.FromNetdev, model.FromNetdev,
		model.FromOverlay, model.ToEndpoint, model.FromHost)
	slot := 1 + d.IntN(4)
	switch program {
	case model.FromEndpoint:
		f.src = endpointAddr(slot, family)
	case model.FromNetdev, model.FromOverlay:
		f.src = podAddr(2+d.IntN(5), 1+d.IntN(2), family)
		if d.one(2) {
			f.dst = endpointAddr(slot, family)
		}
	case model.ToEndpoint:
		f.src, f.dst = nodeAddr(1, family), endpointAddr(slot, family)
	case model.FromHost:
		f.src = nodeAddr(1, family)
	}
	if d.one(15) {
		f.src = d.anybody(family)
	}
	if d.one(15) {
		f.dst = d.anybody(family)
	}
	if d.one(50) {
		slot = endpoints
	}
	d.content(&f)
	if f.src == f.dst && f.sport == f.dport {
		f.sport++ // a socket that talks to itself has one entry for both ways, and no end
	}
	return d.arrive(program, slot, f, d.one(2))
}

// known is an entry of a connection that there is.
func (d dice) known() (key bpf.FlowKey, flow bpf.Flow, ok bool) {
	var keys []bpf.FlowKey
	for _, table := range []map[bpf.FlowKey]*bpf.Flow{d.g.n.Flows, d.g.n.Young} {
		keys = slices.AppendSeq(keys, maps.Keys(table))
	}
	if len(keys) == 0 {
		return key, flow, false
	}
	slices.SortFunc(keys, func(a, b bpf.FlowKey) int { return strings.Compare(describeKey(a), describeKey(b)) })
	key = keys[d.IntN(len(keys))]
	if f := d.g.n.Flows[key]; f != nil {
		return key, *f, true
	}
	return key, *d.g.n.Young[key], true
}

// of makes a frame one of a connection.
func (f *frame) of(key bpf.FlowKey) {
	f.src, f.dst = bpf.Addr(key.Source), bpf.Addr(key.Destination)
	f.proto, f.sport, f.dport = key.Protocol, bpf.Port(key.SourcePort), bpf.Port(key.DestinationPort)
	if f.proto == icmp4 || f.proto == icmp6 {
		f.kind = map[uint8]byte{icmp4: 8, icmp6: 128}[f.proto]
		if f.dport != 0 {
			f.kind = map[uint8]byte{icmp4: 0, icmp6: 129}[f.proto]
			f.sport = f.dport
		}
	}
	f.noChecksum = f.noChecksum && f.proto == udp
}

// call is a packet from an endpoint, or the host, to a service; often to an endpoint's own.
func (d dice) call() step {
	all := services()
	s, family, slot := all[d.IntN(len(all))], d.family(), 1+d.IntN(4)
	if d.one(2) {
		slot = 1 // whose own services are
	}
	f := frame{src: endpointAddr(slot, family), dst: podAddr(7, s.vip, family)}
	d.content(&f)
	f.proto, f.sport, f.dport = s.proto, pick[uint16](d, 1000, 1001), s.port
	f.noChecksum = f.noChecksum && f.proto == udp
	if d.one(8) {
		f.src = nodeAddr(1, family)
		return d.arrive(model.FromHost, slot, f, false)
	}
	return d.arrive(model.FromEndpoint, slot, f, false)
}

// rest is a later fragment of a datagram that began.
func (d dice) rest() step {
	if len(*d.firsts) == 0 {
		return d.fresh()
	}
	of := (*d.firsts)[d.IntN(len(*d.firsts))]
	of.f.offset, of.f.more = uint16(len(of.f.payload)+7)/8, d.one(2)
	return d.arrive(of.program, of.slot, of.f, of.tunnel)
}

// continued is a packet of a connection that has an entry, or an error about one.
func (d dice) continued() (step, bool) {
	key, flow, ok := d.known()
	if !ok {
		return step{}, false
	}
	var f frame
	f.src = bpf.Addr(key.Source)
	if d.one(6) {
		f = d.failed(key)
	} else {
		d.content(&f)
		f.of(key)
	}
	if key.From != 0 {
		return d.arrive(model.FromEndpoint, int(key.From), f, false), true
	}
	program := pick(d, model.FromNetdev, model.FromNetdev, model.FromNetdev, model.FromOverlay)
	if flow.State&bpf.FlowHost != 0 && !d.one(4) || d.one(8) {
		program = pick(d, model.FromHost, model.ToEndpoint)
	}
	return d.arrive(program, int(flow.Ifindex)-base, f, d.one(2)), true
}

// failed is an ICMP error that goes the way of a connection's packets: it quotes one of the other
// direction.
func (d dice) failed(key bpf.FlowKey) frame {
	quoted := frame{src: bpf.Addr(key.Destination)}
	d.content(&quoted)
	key.Source, key.Destination = key.Destination, key.Source
	key.SourcePort, key.DestinationPort = key.DestinationPort, key.SourcePort
	quoted.of(key)
	if d.one(20) {
		quoted.sport++
	}
	e := frame{src: quoted.dst, dst: quoted.src, proto: icmp4, kind: pick[byte](d, 3, 11, 12), code: pick[byte](d, 0, 1, 3, 4)}
	if !e.is4() {
		e.proto, e.kind = icmp6, pick[byte](d, 1, 2, 3, 4)
	}
	if d.one(3) {
		e.src = d.anybody(key.Family)
	}
	e.ttl = pick[uint8](d, 64, 64, 64, 1)
	e.payload = quoted.bytes()[14:]
	e.payload = e.payload[:min(len(e.payload), pick(d, 20, 28, 28, 48, 48, 100, 1000))]
	return e
}

// arrive makes a step of a frame: it meets a program, on an endpoint's device or in a tunnel where
// the program has them.
func (d dice) arrive(program model.Program, slot int, f frame, inTunnel bool) step {
	f.destMAC = [6]byte(bpf.DefaultConfig().GatewayMAC)
	in := model.Input{Program: program, Ifindex: d.g.k.w.eth0}
	text := f.text(program)
	if slot < 1 || slot > endpoints {
		slot = 1
	}
	switch program {
	case model.FromEndpoint:
		f.sourceMAC = endpointMAC(slot)
		in.Ifindex = base + uint32(slot)
		text += fmt.Sprintf(" slot %d", slot)
	case model.ToEndpoint:
		in.Ifindex = base + uint32(slot)
		text += fmt.Sprintf(" slot %d", slot)
	default:
		f.destMAC = d.g.k.w.eth0MAC
	}
	if f.more && f.offset == 0 {
		*d.firsts = append(*d.firsts, first{f, program, slot, inTunnel})
	}
	in.Data = f.bytes()
	if d.one(15) {
		in.Data = d.spoil(in.Data)
		text += fmt.Sprintf(" spoilt: % x", in.Data[:min(len(in.Data), 70)])
	}
	// A test run has no type of GSO, which the kernel wants to see when a tunnel is added: node 2 is
	// never behind one.
	native := f.dst == podAddr(2, 1, 4) || f.dst == podAddr(2, 2, 6)
	if native && f.proto == tcp && !f.more && f.offset == 0 && len(f.payload) > 1000 && d.one(2) {
		in.GSO = model.GSO{Size: 500, Segments: uint32(len(f.payload)+499) / 500}
		text += " GSO"
	}
	vni := d.identity(f.src)
	switch {
	case program == model.FromOverlay:
		in.VNI = vni
		text += fmt.Sprintf(" VNI %#x", vni)
	case program == model.FromNetdev && inTunnel:
		family := d.family()
		from := nodeAddr(3, family)
		in.Data = tunnelled(in.Data, from, nodeAddr(1, family), vni, f.destMAC)
		text += fmt.Sprintf(" in a tunnel over IPv%d, VNI %#x", family, vni)
		if d.one(15) {
			in.Data = d.spoil(in.Data)
			text += fmt.Sprintf(" spoilt: % x", in.Data[:min(len(in.Data), 86)])
		}
		in.GSO = model.GSO{}
	}
	return step{text: text, packet: &in}
}

// spoil makes something of a frame that nobody should send.
func (d dice) spoil(b []byte) []byte {
	if d.one(4) {
		return b[:14+d.IntN(len(b)-13)]
	}
	for range 1 + d.IntN(3) {
		b[12+d.IntN(min(len(b), 80)-12)] = pick(d, byte(d.Uint32()), 0, 4, 6, 17, 43, 44, 51, 60, 0xff)
	}
	if d.one(4) && len(b) > 60 && b[12] == 0x86 {
		copy(b[14+8+16*d.IntN(2):], []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff})
	}
	return b
}

// identity is what a tunnel says of a source, mostly the truth.
func (d dice) identity(source netip.Addr) uint32 {
	if row, ok := d.g.n.IPCache[source]; ok && !d.one(10) {
		return row.Identity
	}
	return pick[uint32](d, 0, 1, 2, 6, remoteIdentity(3), remoteIdentity(4))
}

// change is something that the agent writes.
func (d dice) change() step {
	slot, node := 1+d.IntN(4), 2+d.IntN(5)
	pod, id := 1+d.IntN(2), uint32(d.IntN(3))
	switch d.IntN(11) {
	case 9:
		row := pick(d, bpf.IPCacheEntry{Identity: remoteIdentity(node)}, bpf.IPCacheEntry{Identity: 6, Flags: bpf.IPCacheNode},
			bpf.IPCacheEntry{Identity: 2, Node: 200}, bpf.IPCacheEntry{Identity: 300, Endpoint: endpoints})
		return changed(fmt.Sprintf("pod %d of node %d has row %v", pod, node, row), func(n *model.Node) {
			n.IPCache[podAddr(node, pod, 4)], n.IPCache[podAddr(node, pod, 6)] = row, row
		})
	case 10:
		return changed("nobody is known by prefix", func(n *model.Node) { clear(n.Prefixes) })
	case 0:
		return changed(fmt.Sprintf("endpoint %d gets identity +%d", slot, id*16), func(n *model.Node) {
			addEndpoint(n, slot, endpointIdentity(slot)+id*16)
		})
	case 1:
		return changed(fmt.Sprintf("pod %d of node %d gets identity +%d", pod, node, id*16), func(n *model.Node) {
			setRemote(n, node, pod, remoteIdentity(node)+id*16)
		})
	case 2:
		return changed(fmt.Sprintf("pod %d of node %d is unknown", pod, node), func(n *model.Node) {
			delete(n.IPCache, podAddr(node, pod, 4))
			delete(n.IPCache, podAddr(node, pod, 6))
		})
	case 3:
		node = max(node, 3)
		flags, mtu := pick(d, 0, bpf.NodeTunnel, bpf.NodeTunnel, bpf.NodeTunnel|bpf.NodeIPv6), pick[uint16](d, 0, 1450, 1400, 9000)
		return changed(fmt.Sprintf("node %d has flags %d mtu %d", node, flags, mtu), func(n *model.Node) {
			setNode(n, node, flags, mtu)
		})
	case 4:
		node = max(node, 3)
		return changed(fmt.Sprintf("node %d has no addresses", node), func(n *model.Node) {
			n.Nodes[uint16(node)] = bpf.Node{Flags: bpf.NodeTunnel}
		})
	case 5, 6:
		all := services()
		s := all[d.IntN(len(all))]
		var left []backend
		for _, b := range s.backends {
			if !d.one(3) {
				left = append(left, b)
			}
		}
		s.backends = left
		return changed(fmt.Sprintf("service %d has backends %v", s.id, left), s.set)
	case 7:
		return changed(fmt.Sprintf("endpoint %d has no row", slot), func(n *model.Node) {
			delete(n.Endpoints, uint16(slot))
		})
	}
	return changed("pressure changes", func(n *model.Node) { n.Pressure = !n.Pressure })
}

// question is one for a link address, as endpoints ask and answer them.
func (d dice) question() step {
	slot := 1 + d.IntN(4)
	family := d.family()
	target := pick(d, v4("169.254.1.1"), v4("169.254.1.1"), endpointAddr(2, 4), nodeAddr(1, 4))
	if family == 6 {
		target = pick(d, v4("fe80::1"), v4("fe80::1"), endpointAddr(2, 6), nodeAddr(1, 6))
	}
	from := pick(d, endpointAddr(slot, family), endpointAddr(slot, family), endpointAddr(3, family))
	own, gateway := endpointMAC(slot), [6]byte(bpf.DefaultConfig().GatewayMAC)
	in := model.Input{Program: model.FromEndpoint, Ifindex: base + uint32(slot)}
	operation := pick[byte](d, 1, 1, 2)
	if family == 4 {
		in.Data = append(append([]byte(nil), gateway[:]...), own[:]...)
		in.Data = append(in.Data, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation)
		in.Data = append(append(append(in.Data, own[:]...), from.AsSlice()...), make([]byte, 6)...)
		in.Data = append(in.Data, target.AsSlice()...)
		return step{text: fmt.Sprintf("slot %d: ARP %d from %v for %v", slot, operation, from, target), packet: &in}
	}
	f := frame{
		src: pick(d, from, v4("fe80::2"), v4("::")), dst: pick(d, v4("ff02::1:ff00:1"), nodeAddr(1, 6), endpointAddr(3, 6), podAddr(2, 1, 6), v4("fe80::1")),
		proto: icmp6, kind: 134 + operation, ttl: 255, sourceMAC: own, destMAC: gateway,
		payload: append(target.AsSlice(), 1, 1, 2, 0, 0, 0, 0, 1),
	}
	if d.one(8) {
		f.kind = pick[byte](d, 130, 133, 134, 137, 143)
	}
	in.Data = f.bytes()
	return step{text: fmt.Sprintf("slot %d: ND %s for %v", slot, f.text(model.FromEndpoint), target), packet: &in}
}
