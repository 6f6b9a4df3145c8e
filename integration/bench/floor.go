// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/netns"
)

// afBridge is the family of forwarding entries.
const afBridge = unix.AF_BRIDGE

// Offsets in struct __sk_buff.
const (
	skbData    = 76
	skbDataEnd = 80
)

// tcDrop is TC_ACT_SHOT.
const tcDrop = 2

// buildFloor is the least that BPF can do between nodes: the pod's node writes the next hop's
// addresses and redirects to the wire, the other node hands over to its pod. No lookup, no check.
func buildFloor(w *World) (Path, error) {
	a, b, err := w.newPair()
	if err != nil {
		return Path{}, err
	}
	for _, n := range [][2]*Node{{a, b}, {b, a}} {
		here, there := n[0], n[1]
		pod := here.Pods[0]
		if err := w.attach(here.NS, slotBase+pod.Slot, "floor_out", toWire(here.WireIdx, there.MAC, here.MAC)); err != nil {
			return Path{}, err
		}
		if err := w.attach(here.NS, here.WireIdx, "floor_in", toPeer(slotBase+pod.Slot)); err != nil {
			return Path{}, err
		}
	}
	return between(a.Pods[0], b.Pods[0]), nil
}

// buildNodeFloor is the least that BPF can do within a node.
func buildNodeFloor(w *World) (Path, error) {
	n, err := w.newSingle()
	if err != nil {
		return Path{}, err
	}
	for i, pod := range n.Pods {
		other := n.Pods[1-i]
		if err := w.attach(n.NS, slotBase+pod.Slot, "floor_local", toPeer(slotBase+other.Slot)); err != nil {
			return Path{}, err
		}
	}
	return between(n.Pods[0], n.Pods[1]), nil
}

// toWire overwrites the Ethernet addresses and redirects to a device. The addresses are written by
// direct access, which is cheaper than the helper.
func toWire(ifindex int, to, from net.HardwareAddr) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, skbData, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, skbDataEnd, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, 14),
		asm.JGT.Reg(asm.R4, asm.R3, "short"),
		asm.StoreImm(asm.R2, 0, int64(int32(binary.NativeEndian.Uint32(to[0:4]))), asm.Word),
		asm.StoreImm(asm.R2, 4, int64(binary.NativeEndian.Uint16(to[4:6])), asm.Half),
		asm.StoreImm(asm.R2, 6, int64(binary.NativeEndian.Uint16(from[0:2])), asm.Half),
		asm.StoreImm(asm.R2, 8, int64(int32(binary.NativeEndian.Uint32(from[2:6]))), asm.Word),
		asm.Mov.Imm(asm.R1, int32(ifindex)),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
		asm.Mov.Imm(asm.R0, tcDrop).WithSymbol("short"),
		asm.Return(),
	}
}

// toPeer hands a packet to the other end of a veth pair, inside its namespace.
func toPeer(ifindex int) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R1, int32(ifindex)),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirectPeer.Call(),
		asm.Return(),
	}
}

// attach loads a program and attaches it to a device's ingress until the world is closed.
func (w *World) attach(ns *netns.NS, ifindex int, name string, insns asm.Instructions) error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: name, Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: insns,
	})
	if err != nil {
		return fmt.Errorf("load %s: %w", name, err)
	}
	w.onClose(prog.Close)
	return w.attachProgram(ns, ifindex, name, prog)
}

// attachProgram attaches a program to a device's ingress until the world is closed.
func (w *World) attachProgram(ns *netns.NS, ifindex int, name string, prog *ebpf.Program) error {
	var l link.Link
	err := ns.Do(func() (err error) {
		// The index is looked up in the namespace of the calling thread.
		l, err = link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: prog, Attach: ebpf.AttachTCXIngress})
		return err
	})
	if err != nil {
		return fmt.Errorf("attach %s to device %d of %s: %w", name, ifindex, ns.Name(), err)
	}
	// A program on several devices counts once.
	if !slices.ContainsFunc(w.loaded, func(p Program) bool { return p.Program == prog }) {
		w.loaded = append(w.loaded, Program{strings.TrimPrefix(ns.Name(), w.prefix+"-") + "/" + name, prog})
	}
	w.onClose(func() error {
		err := l.Close()
		// A link that nothing refers to is closed, and the program detached, by its finalizer.
		runtime.KeepAlive(l)
		return err
	})
	return nil
}
