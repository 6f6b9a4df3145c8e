// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Test runs do not carry redirects out and run by the kernel's clock. So the programs are loaded
// with some helper calls replaced by a few instructions on a map of the referee: everything else
// is what is loaded in production.

// refereeMap is one value that patched programs and the test share.
const refereeMap = "referee"

// referee is the value of that map.
type referee struct {
	Clock   uint64 // what the helper jiffies64 returns
	Time    uint64 // what the helper ktime_get_ns returns
	Helper  uint32 // redirect helper that was called, 0: none
	Ifindex uint32 // its device
	Flags   uint64 // its flags
	Size    uint32 // redirect_neigh: bytes of parameters
	Family  uint32 // redirect_neigh: address family of the next hop
	Address [16]byte
	VNI     uint32 // what the helper skb_get_tunnel_key returns
	Calls   uint32 // redirects called
	Armed   uint32 // number of the helper call before which something happens, from 1
	Fired   uint32 // it happened
}

// Offsets in referee.
const (
	offClock, offTime, offHelper, offIfindex, offFlags = 0, 8, 16, 20, 24
	offSize, offFamily, offAddress, offVNI, offCalls   = 32, 36, 40, 56, 60
	offArmed, offFired                                 = 64, 68
	refereeSize                                        = 72
)

// Return values of tcx programs.
const (
	verdictNext     = -1
	verdictDrop     = 2
	verdictRedirect = 7
)

func refereeSpec() *ebpf.MapSpec {
	return &ebpf.MapSpec{Name: refereeMap, Type: ebpf.Array, KeySize: 4, ValueSize: refereeSize, MaxEntries: 1}
}

// value loads the address of a map's only value.
func value(dst asm.Register, name string) asm.Instruction {
	return asm.Instruction{
		OpCode: asm.LoadImmOp(asm.DWord), Dst: dst, Src: asm.PseudoMapValue,
	}.WithReference(name)
}

// replacement is what stands for a call of a helper; nil keeps the call.
func replacement(fn asm.BuiltinFunc) asm.Instructions {
	switch fn {
	case asm.FnJiffies64:
		return asm.Instructions{value(asm.R0, refereeMap), asm.LoadMem(asm.R0, asm.R0, offClock, asm.DWord)}
	case asm.FnKtimeGetNs, asm.FnKtimeGetCoarseNs:
		return asm.Instructions{value(asm.R0, refereeMap), asm.LoadMem(asm.R0, asm.R0, offTime, asm.DWord)}
	case asm.FnRedirect, asm.FnRedirectPeer:
		return append(record(fn, asm.R2), asm.Mov.Imm(asm.R0, verdictRedirect))
	case asm.FnRedirectNeigh:
		insns := append(record(fn, asm.R4), asm.StoreMem(asm.R5, offSize, asm.R3, asm.Word))
		insns = append(insns, asm.JNE.Imm(asm.R3, 20, "end"), asm.LoadMem(asm.R0, asm.R2, 0, asm.Word),
			asm.StoreMem(asm.R5, offFamily, asm.R0, asm.Word))
		for i := int16(0); i < 16; i += 4 {
			insns = append(insns, asm.LoadMem(asm.R0, asm.R2, 4+i, asm.Word),
				asm.StoreMem(asm.R5, offAddress+i, asm.R0, asm.Word))
		}
		return append(insns, asm.Mov.Imm(asm.R0, verdictRedirect).WithSymbol("end"))
	case asm.FnSkbGetTunnelKey:
		return asm.Instructions{
			value(asm.R5, refereeMap),
			asm.LoadMem(asm.R0, asm.R5, offVNI, asm.Word),
			asm.StoreMem(asm.R2, 0, asm.R0, asm.Word),
			asm.Mov.Imm(asm.R0, 0),
		}
	}
	return nil
}

// record stores which helper was called for which device; R5 points to the referee afterwards.
func record(fn asm.BuiltinFunc, flags asm.Register) asm.Instructions {
	return asm.Instructions{
		value(asm.R5, refereeMap),
		asm.StoreImm(asm.R5, offHelper, int64(fn), asm.Word),
		asm.StoreMem(asm.R5, offIfindex, asm.R1, asm.Word),
		asm.StoreMem(asm.R5, offFlags, flags, asm.DWord),
		asm.LoadMem(asm.R0, asm.R5, offCalls, asm.Word),
		asm.Add.Imm(asm.R0, 1),
		asm.StoreMem(asm.R5, offCalls, asm.R0, asm.Word),
	}
}

// patch replaces helper calls. before, if not nil, returns instructions that come before the n-th
// call of a helper, counted from 0 in the order of the program's text; they may use R0 only.
func patch(insns asm.Instructions, before func(n int) asm.Instructions) (asm.Instructions, error) {
	insns, err := label(insns)
	if err != nil {
		return nil, err
	}
	var out asm.Instructions
	calls := 0
	for i, ins := range insns {
		if !ins.IsBuiltinCall() {
			out = append(out, ins)
			continue
		}
		with := replacement(asm.BuiltinFunc(ins.Constant))
		if with == nil {
			with = asm.Instructions{asm.BuiltinFunc(ins.Constant).Call()}
		}
		if before != nil {
			with = append(before(calls), with...)
		}
		calls++
		// Labels inside of the replacement become unique ones.
		for j := range with {
			if with[j].Symbol() == "end" {
				with[j] = with[j].WithSymbol(fmt.Sprintf("end.%d", i))
			}
			if with[j].Reference() == "end" {
				with[j] = with[j].WithReference(fmt.Sprintf("end.%d", i))
			}
		}
		// The first instruction takes the place of the call: its label, line and function.
		first := with[0]
		first.Metadata = ins.Metadata
		if ref := with[0].Reference(); ref != "" {
			first = first.WithReference(ref)
		}
		with[0] = first
		out = append(out, with...)
	}
	return out, nil
}

// label turns the numbers in jumps into labels, so that instructions can be inserted.
func label(insns asm.Instructions) (asm.Instructions, error) {
	insns = append(asm.Instructions(nil), insns...)
	at := map[asm.RawInstructionOffset]int{}
	for iter := insns.Iterate(); iter.Next(); {
		at[iter.Offset] = iter.Index
	}
	for iter := insns.Iterate(); iter.Next(); {
		ins := &insns[iter.Index]
		op := ins.OpCode.JumpOp()
		if !ins.OpCode.Class().IsJump() || op == asm.Call || op == asm.Exit || ins.Reference() != "" {
			continue
		}
		distance := int64(ins.Offset)
		long := op == asm.Ja && ins.OpCode.Class() == asm.Jump32Class
		if long {
			distance = ins.Constant
		}
		i, ok := at[asm.RawInstructionOffset(int64(iter.Offset)+1+distance)]
		if !ok {
			return nil, fmt.Errorf("instruction %d jumps between instructions", iter.Index)
		}
		name := insns[i].Symbol()
		if name == "" {
			name = fmt.Sprintf("label.%d", i)
			insns[i] = insns[i].WithSymbol(name)
		}
		*ins = ins.WithReference(name)
		if long {
			ins.Constant = -1
		} else {
			ins.Offset = -1
		}
	}
	return insns, nil
}
