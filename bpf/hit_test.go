// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// benchmark reports the best of some rounds of many runs of a program on one frame, each round one
// system call.
func (r *rig) benchmark(b *testing.B, program *ebpf.Program, ifindex uint32, in []byte) {
	b.Helper()
	const rounds, runs = 7, 200_000
	best := time.Duration(1<<63 - 1)
	for range rounds {
		began := time.Now()
		must(b, r.ns.Do(func() error {
			_, err := program.Run(&ebpf.RunOptions{
				Data: in, DataOut: make([]byte, len(in)+256), Context: skbContext{Ifindex: ifindex}, Repeat: runs,
			})
			return err
		}))
		best = min(best, time.Since(began))
	}
	b.ReportMetric(float64(best.Nanoseconds())/runs, "ns/run")
	b.ReportMetric(0, "ns/op")
}

// The two hits are of packets that no run changes: towards the world they do not age, and a packet
// that is delivered does not either.
func BenchmarkHit_World(b *testing.B) {
	r := newRig(b, small(), modes()[0])
	f := frame{To: gatewayMAC, From: podMAC, Source: ipv4.pod, Dest: ipv4.world, TTL: 64, Protocol: protoTCP, Sport: 1000, Dport: 80, Flags: ack}
	r.benchmark(b, r.FromEndpoint, lxc(1), f.encode())
}

func BenchmarkHit_Delivered(b *testing.B) {
	r := newRig(b, small(), modes()[0])
	f := frame{To: wireMAC, From: peerMAC, Source: ipv4.other, Dest: ipv4.pod, TTL: 64, Protocol: protoTCP, Sport: 1000, Dport: 80, Flags: ack}
	r.benchmark(b, r.FromNetdev, r.wire, f.encode())
}

func BenchmarkDecide(b *testing.B) {
	for _, events := range []bool{true, false} {
		name := "silent"
		if events {
			name = "events"
		}
		b.Run(name, func(b *testing.B) {
			cfg := small()
			cfg.ReportEvents = events
			r := newRig(b, cfg, modes()[0])
			f := frame{To: gatewayMAC, From: podMAC, Source: ipv4.pod, Dest: ipv4.world, TTL: 64, Protocol: protoTCP, Sport: 1000, Dport: 80, Flags: rst}
			r.run(r.FromEndpoint, lxc(1), f.encode())
			// A SYN that resets, too, finds its connection closing and is decided as new in each run.
			f.Flags = rst | syn
			r.benchmark(b, r.FromEndpoint, lxc(1), f.encode())
		})
	}
}
