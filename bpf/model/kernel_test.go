// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"structs"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/bpf/model"
)

// programName is the name of a C program.
func programName(p model.Program) string {
	return [...]string{
		model.FromEndpoint: "from_endpoint", model.ToEndpoint: "to_endpoint",
		model.FromNetdev: "from_netdev", model.FromOverlay: "from_overlay", model.FromHost: "from_host",
	}[p]
}

// kernel is the loaded datapath, patched for the referee.
type kernel struct {
	w       *world
	c       *ebpf.Collection
	events  *ringbuf.Reader
	referee referee
}

// load loads the programs; before is as in patch.
func load(t testing.TB, w *world, cfg bpf.Config, before func(n int) asm.Instructions) *kernel {
	t.Helper()
	spec, err := bpf.Spec(cfg)
	if err != nil {
		t.Fatal(err)
	}
	delete(spec.Programs, "read_clock")
	for name, p := range spec.Programs {
		if p.Instructions, err = patch(p.Instructions, before); err != nil {
			t.Fatalf("patch %s: %v", name, err)
		}
	}
	spec.Maps[refereeMap] = refereeSpec()
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		var refused *ebpf.VerifierError
		if errors.As(err, &refused) {
			t.Fatalf("%+v", refused)
		}
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	events, err := ringbuf.NewReader(c.Maps["events"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { events.Close() })
	events.SetDeadline(time.Unix(1, 0))
	return &kernel{w: w, c: c, events: events}
}

// skb is the context of a test run, struct __sk_buff.
type skb struct {
	_              structs.HostLayout
	Head           [9]uint32
	IngressIfindex uint32
	Ifindex        uint32
	Middle         [30]uint32
	GSOSegs        uint32
	Socket         uint64
	GSOSize        uint32
	Tail           [3]uint32
}

// result is what the programs did with a packet.
type result struct {
	verdict int32
	referee referee
	data    []byte
	events  []bpf.FlowEvent
}

// run gives a packet to a program.
func (k *kernel) run(in model.Input) (result, error) {
	k.referee.Helper, k.referee.Ifindex, k.referee.Flags, k.referee.Size, k.referee.Calls = 0, 0, 0, 0, 0
	k.referee.Family, k.referee.Address = 0, [16]byte{}
	k.referee.VNI = in.VNI
	if err := k.c.Maps[refereeMap].Put(uint32(0), &k.referee); err != nil {
		return result{}, err
	}
	ctx := skb{Ifindex: in.Ifindex, IngressIfindex: in.Ifindex, GSOSize: in.GSO.Size, GSOSegs: in.GSO.Segments}
	if in.Program == model.ToEndpoint || in.Program == model.FromHost {
		ctx.IngressIfindex = 0
	}
	opts := &ebpf.RunOptions{Data: in.Data, DataOut: make([]byte, len(in.Data)+256), Context: ctx}
	var r result
	err := k.w.ns.Do(func() error {
		code, err := k.c.Programs[programName(in.Program)].Run(opts)
		r.verdict = int32(code)
		return err
	})
	if err != nil {
		return r, fmt.Errorf("run %s: %w", programName(in.Program), err)
	}
	r.data = opts.DataOut
	if err := k.c.Maps[refereeMap].Lookup(uint32(0), &r.referee); err != nil {
		return r, err
	}
	r.events, err = k.readEvents()
	return r, err
}

func (k *kernel) readEvents() (events []bpf.FlowEvent, err error) {
	for {
		record, err := k.events.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return events, nil
		}
		if err != nil {
			return nil, err
		}
		var e bpf.FlowEvent
		if err := binary.Read(bytes.NewReader(record.RawSample), binary.LittleEndian, &e); err != nil {
			return nil, err
		}
		events = append(events, e)
	}
}

// flows reads one of the tables.
func (k *kernel) flows(table string) (map[bpf.FlowKey]bpf.Flow, error) {
	flows := map[bpf.FlowKey]bpf.Flow{}
	keys, values := make([]bpf.FlowKey, 256), make([]bpf.Flow, 256)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := k.c.Maps[table].BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			flows[keys[i]] = values[i]
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return flows, nil
		}
		if err != nil {
			return nil, fmt.Errorf("map %s: %w", table, err)
		}
	}
}

// counters reads all counters, summed up over processors.
func (k *kernel) counters() (map[uint32]bpf.Counter, error) {
	size, cpus := int(bpf.DropReasons)*int(bpf.Directions), ebpf.MustPossibleCPU()
	keys, values := make([]uint32, size), make([]bpf.Counter, size*cpus)
	var cursor ebpf.MapBatchCursor
	n, err := k.c.Maps["counters"].BatchLookup(&cursor, keys, values, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, fmt.Errorf("map counters: %w", err)
	}
	counters := map[uint32]bpf.Counter{}
	for i, key := range keys[:n] {
		var total bpf.Counter
		for _, v := range values[i*cpus : (i+1)*cpus] {
			total.Packets += v.Packets
			total.Bytes += v.Bytes
		}
		if total.Packets != 0 {
			counters[key] = total
		}
	}
	return counters, nil
}

// write brings a map to what the model has: rows that are not wanted are deleted.
func write[K comparable, V any](m *ebpf.Map, want map[K]V) error {
	have := map[K]V{}
	var k K
	var v V
	for it := m.Iterate(); it.Next(&k, &v); {
		have[k] = v
	}
	for k := range have {
		if _, ok := want[k]; !ok {
			if err := m.Delete(k); err != nil {
				return err
			}
		}
	}
	for k, v := range want {
		if err := m.Put(k, v); err != nil {
			return err
		}
	}
	return nil
}

// sync writes the model's rows into the maps, and raises the generation last, as an agent does.
func (k *kernel) sync(n *model.Node) error {
	exact, prefixes := map[bpf.AddressKey]bpf.IPCacheEntry{}, map[bpf.PrefixKey]bpf.IPCacheEntry{}
	for a, row := range n.IPCache {
		exact[bpf.AddressKey{Address: bpf.Address(a)}] = row
	}
	for p, row := range n.Prefixes {
		prefixes[bpf.Prefix(p)] = row
	}
	slots, nodes := map[uint32]bpf.Endpoint{}, map[uint32]bpf.Node{}
	for s := range n.Config.EndpointSlots {
		slots[s] = n.Endpoints[uint16(s)]
	}
	for i := range n.Config.MaxNodes {
		nodes[i] = n.Nodes[uint16(i)]
	}
	maps := k.c.Maps
	settings := map[uint32]bpf.Settings{0: {}}
	row := settings[0]
	if n.Pressure {
		row.Pressure = 1
	}
	if n.MayYoung {
		row.Young = 1
	}
	settings[0] = row
	return errors.Join(
		write(maps["ipcache"], exact), write(maps["ipcache_prefix"], prefixes),
		write(maps["endpoints"], slots), write(maps["nodes"], nodes),
		write(maps["frontends"], n.Frontends), write(maps["backends"], n.Backends),
		write(maps["runtime"], settings),
		maps["generation"].Put(uint32(0), n.Generation),
	)
}

// tick sets the clock of the programs and of the model.
func (k *kernel) tick(n *model.Node, now uint32) {
	n.Now = now
	k.referee.Clock, k.referee.Time = uint64(now), uint64(now)*4_000_000
}

func nextHop(r referee) netip.Addr {
	if r.Size == 0 {
		return netip.Addr{}
	}
	if r.Family == 2 {
		return netip.AddrFrom4([4]byte(r.Address[:4]))
	}
	return netip.AddrFrom16(r.Address)
}
