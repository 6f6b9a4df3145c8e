// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/bpf/model"
)

// game runs model and programs side by side.
type game struct {
	k *kernel
	n *model.Node

	last model.Output // of the model
}

func newGame(k *kernel, cfg bpf.Config) *game {
	return &game{k: k, n: newNode(k, cfg)}
}

// newNode is a node without rows, with the kernel's routes and the programs' hash.
func newNode(k *kernel, cfg bpf.Config) *model.Node {
	n := model.NewNode(cfg)
	n.Route, n.Choose = k.w.route, choose
	return n
}

// reset empties everything that packets leave.
func (g *game) reset(cfg bpf.Config) error {
	g.n = newNode(g.k, cfg)
	for _, table := range []string{"flows", "flows_young"} {
		if err := write(g.k.c.Maps[table], map[bpf.FlowKey]bpf.Flow{}); err != nil {
			return err
		}
	}
	if err := write(g.k.c.Maps["fragments"], map[bpf.FragmentKey]bpf.Fragment{}); err != nil {
		return err
	}
	if err := write(g.k.c.Maps["hops"], map[[16]byte][16]byte{}); err != nil {
		return err
	}
	var device bpf.Device
	for i := range uint32(256) {
		if err := g.k.c.Maps["devices"].Put(i, device); err != nil {
			return err
		}
	}
	have, err := g.k.counters()
	if err != nil {
		return err
	}
	for i := range have {
		if err := g.k.c.Maps["counters"].Put(i, make([]bpf.Counter, ebpf.MustPossibleCPU())); err != nil {
			return err
		}
	}
	_, err = g.k.readEvents()
	return err
}

// play gives a packet to both and returns what differs, empty when nothing does.
func (g *game) play(in model.Input) (string, error) {
	saw, err := g.look(in)
	// A test run wants to see a whole IP header.
	if errors.Is(err, unix.EINVAL) && len(in.Data) < 14+40 {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return g.judge(in, saw), nil
}

// sight is all that there is to see after the programs had a packet.
type sight struct {
	result
	flows, young map[bpf.FlowKey]bpf.Flow
	counters     map[uint32]bpf.Counter
	mayYoung     bool
}

func (g *game) look(in model.Input) (s sight, err error) {
	if s.result, err = g.k.run(in); err != nil {
		return s, err
	}
	if s.flows, err = g.k.flows("flows"); err != nil {
		return s, err
	}
	if s.young, err = g.k.flows("flows_young"); err != nil {
		return s, err
	}
	if s.counters, err = g.k.counters(); err != nil {
		return s, err
	}
	var settings bpf.Settings
	err = g.k.c.Maps["runtime"].Lookup(uint32(0), &settings)
	s.mayYoung = settings.Young != 0
	return s, err
}

// judge gives a packet to the model and compares.
func (g *game) judge(in model.Input, saw sight) string {
	var odd []string
	out := g.n.Run(in)
	g.last = out

	add := func(what, diff string) {
		if diff != "" {
			odd = append(odd, what+" (- model + kernel):\n"+diff)
		}
	}
	add("verdict", cmp.Diff(describe(out), describeResult(saw.result)))
	if out.Verdict != model.Drop && saw.verdict != verdictDrop {
		add("packet", comparePackets(out, saw.result))
	}
	if saw.verdict != verdictDrop && correct(in.Data) && !correct(saw.data) {
		add("checksums", "the packet's were right and are wrong now:\n"+strings.Join(dump(saw.data), "\n"))
	}
	add("flows", g.compareTables(g.n.Flows, saw.flows))
	add("young flows", g.compareTables(g.n.Young, saw.young))
	if !maps.Equal(g.n.Counters, saw.counters) {
		add("counters", cmp.Diff(names(g.n.Counters), names(saw.counters)))
	}
	add("events", cmp.Diff(eventLines(g.n.Events, 0), eventLines(saw.events, g.k.referee.Time)))
	add("young hint", cmp.Diff(g.n.MayYoung, saw.mayYoung))
	return strings.Join(odd, "\n")
}

// compareTables compares entries. What nobody reads is left out: what an entry holds of a route that
// ended, and the next hop of packets for the host's stack.
func (g *game) compareTables(want map[bpf.FlowKey]*bpf.Flow, have map[bpf.FlowKey]bpf.Flow) string {
	read := func(f bpf.Flow) bpf.Flow {
		if f.State&bpf.FlowLeaves != 0 && int32(f.RouteUntil-g.n.Now) <= 0 {
			f.Mac, f.Mtu, f.RouteUntil, f.Ifindex = [6]byte{}, 0, 0, 0
		}
		if f.State&bpf.FlowLeaves == 0 {
			f.RouteUntil = 0
			if f.Ifindex == 0 {
				f.Mac = [6]byte{}
			}
		}
		return f
	}
	same := len(want) == len(have)
	for k, f := range want {
		same = same && read(*f) == read(have[k])
	}
	if same {
		return ""
	}
	wanted, had := map[string]string{}, map[string]string{}
	for k, f := range want {
		wanted[describeKey(k)] = describeFlow(k, read(*f))
	}
	for k, f := range have {
		had[describeKey(k)] = describeFlow(k, read(f))
	}
	return cmp.Diff(wanted, had)
}

func describe(o model.Output) string {
	switch o.Verdict {
	case model.Drop:
		return "drop"
	case model.Pass:
		return "pass"
	}
	ways := map[model.Way]string{model.Peer: "peer", model.Device: "device", model.Neighbour: "neighbour", model.Back: "back"}
	return fmt.Sprintf("redirect to %s %#x %v", ways[o.Way], o.Ifindex, o.NextHop)
}

func describeResult(r result) string {
	switch {
	case r.verdict == verdictDrop && r.referee.Calls == 0:
		return "drop"
	case (r.verdict == verdictNext || r.verdict == 0) && r.referee.Calls == 0:
		return "pass"
	case r.verdict != verdictRedirect || r.referee.Calls != 1:
		return fmt.Sprintf("verdict %d after %d redirects", r.verdict, r.referee.Calls)
	}
	way := "?"
	switch asm.BuiltinFunc(r.referee.Helper) {
	case asm.FnRedirectPeer:
		way = "peer"
	case asm.FnRedirect:
		way = "device"
		if r.referee.Flags == 1 {
			way = "back"
		}
	case asm.FnRedirectNeigh:
		way = "neighbour"
	}
	if r.referee.Flags > 1 || way != "back" && r.referee.Flags != 0 {
		way += fmt.Sprintf(" with flags %#x", r.referee.Flags)
	}
	return fmt.Sprintf("redirect to %s %#x %v", way, r.referee.Ifindex, nextHop(r.referee))
}

// comparePackets compares bytes. Where the model leaves a choice the kernel's is checked and taken
// out: source port and id of the outer headers, link addresses that the kernel writes itself.
func comparePackets(out model.Output, r result) string {
	want, have := append([]byte(nil), out.Data...), append([]byte(nil), r.data...)
	if out.Way == model.Neighbour {
		clear(want[:12])
		clear(have[:12])
	}
	if len(want) != len(have) {
		return fmt.Sprintf("%d bytes, have %d:\n%s", len(want), len(have), cmp.Diff(dump(want), dump(have)))
	}
	at := 0
	switch out.Tunnel {
	case 4:
		if len(have) < 50 || checksum(have[14:34]) != 0xffff {
			return "the outer header's checksum is wrong"
		}
		copy(have[18:20], want[18:20])
		copy(have[24:26], want[24:26])
		at = 34
	case 6:
		at = 54
	}
	if at != 0 {
		if port := binary.BigEndian.Uint16(have[at:]); port < 32768 {
			return fmt.Sprintf("outer source port %d", port)
		}
		copy(have[at:at+2], want[at:at+2])
	}
	if bytes.Equal(want, have) {
		return ""
	}
	return cmp.Diff(dump(want), dump(have))
}

func dump(b []byte) []string {
	var lines []string
	for i := 0; i < len(b); i += 16 {
		lines = append(lines, fmt.Sprintf("%04x % x", i, b[i:min(i+16, len(b))]))
	}
	return lines
}

func names(counters map[uint32]bpf.Counter) map[string]string {
	out := map[string]string{}
	for i, c := range maps.All(counters) {
		reason, direction := bpf.DropReason(i/2), [...]string{"egress", "ingress"}[i%2]
		out[reason.String()+" "+direction] = fmt.Sprintf("%d packets %d bytes", c.Packets, c.Bytes)
	}
	return out
}

func describeKey(k bpf.FlowKey) string {
	return fmt.Sprintf("%d %v.%d > %v.%d from %d family %d", k.Protocol, bpf.Addr(k.Source), bpf.Port(k.SourcePort),
		bpf.Addr(k.Destination), bpf.Port(k.DestinationPort), k.From, k.Family)
}

func describeFlow(k bpf.FlowKey, f bpf.Flow) string {
	var s []string
	for _, st := range []struct {
		bit  uint16
		name string
	}{
		{bpf.FlowReply, "reply"}, {bpf.FlowReplied, "replied"}, {bpf.FlowFin, "fin"}, {bpf.FlowTwinFin, "twin-fin"},
		{bpf.FlowReset, "reset"}, {bpf.FlowSource, "source"}, {bpf.FlowDestination, "destination"},
		{bpf.FlowLoopback, "loopback"}, {bpf.FlowTunnel, "tunnel"}, {bpf.FlowLeaves, "leaves"}, {bpf.FlowClosed, "closed"},
		{bpf.FlowRefused, "refused"}, {bpf.FlowOpened, "opened"}, {bpf.FlowHost, "host"},
	} {
		if f.State&st.bit != 0 {
			s = append(s, st.name)
			f.State &^= st.bit
		}
	}
	to := ""
	if strings.Contains(strings.Join(s, " "), "source") || strings.Contains(strings.Join(s, " "), "destination") {
		to = fmt.Sprintf(" becomes %v.%d", bpf.Addr(f.Address), bpf.Port(f.Port))
	}
	return fmt.Sprintf("generation %d seen %d route %d identity %d ifindex %#x mac %x state %v+%#x%s service %d node %d mtu %d: %d packets %d bytes",
		f.Generation, f.Seen, f.RouteUntil, f.Identity, f.Ifindex, f.Mac, s, f.State, to, f.Service, f.Node, f.Mtu, f.Packets, f.Bytes)
}

// eventLines shows events; those about packets that could not be parsed say nothing of the packet.
func eventLines(events []bpf.FlowEvent, at uint64) []string {
	var lines []string
	for _, e := range events {
		if e.Time != at {
			lines = append(lines, fmt.Sprintf("time %d, not %d", e.Time, at))
		}
		kind := [...]string{"?", "new", "closed", "refused"}[e.Kind]
		line := fmt.Sprintf("%s %v direction %d", kind, bpf.DropReason(e.Reason), e.Direction)
		switch bpf.DropReason(e.Reason) {
		case bpf.DropMalformed, bpf.DropProtocol, bpf.DropMapped:
		default:
			line += fmt.Sprintf(" %d %v.%d > %v.%d backend %v.%d service %d identities %d %d endpoints %d %d family %d flags %#x node %d packets %d/%d bytes %d/%d",
				e.Protocol, bpf.Addr(e.Source), bpf.Port(e.SourcePort), bpf.Addr(e.Destination), bpf.Port(e.DestinationPort),
				bpf.Addr(e.Backend), bpf.Port(e.BackendPort), e.Service, e.SourceIdentity, e.DestinationIdentity,
				e.SourceEndpoint, e.DestinationEndpoint, e.Family, e.TcpFlags, e.Node, e.Packets, e.ReplyPackets, e.Bytes, e.ReplyBytes)
		}
		lines = append(lines, line)
	}
	return lines
}
