// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/internal/netns"
)

// The names of our own variants. The harness writes the rows of the maps itself: what is measured
// is the datapath, without an agent.
const (
	Native     = "weft-native"    // pod to pod between nodes, routed by the underlay
	VXLAN      = "weft-vxlan"     // pod to pod between nodes, through the tunnel
	Local      = "weft-node"      // pod to pod on one node
	Service    = "weft-service"   // native, to a virtual address, one service loaded
	Services   = "weft-services"  // native, to one virtual address, 27,000 services loaded
	ServiceAny = "weft-randomvip" // native, to a random one of 27,000 virtual addresses
)

// manyServices is the size of the installation that the goals are for.
const manyServices = 27000

// identityBase plus slot is the identity of a pod.
const identityBase = 0x10000

// afterRows is the generation of a node whose rows are written.
const afterRows = 1

// weftNode is a node with our datapath.
type weftNode struct {
	*Node
	objects *bpf.Objects
	events  *ringbuf.Reader
}

// newWeft loads the datapath for a node and attaches it to the node's devices, until the world is
// closed. tcx links live with their devices; what stands in the host's stack is not on the path.
func (w *World) newWeft(n *Node) (*weftNode, error) {
	cfg := bpf.DefaultConfig()
	cfg.GatewayMAC = gatewayMAC
	cfg.EndpointIfindexBase = slotBase
	// Enough for every port of a client in both directions, and for the services of the goals.
	cfg.MaxIPCache, cfg.MaxFlows = 64<<10, 512<<10
	objects, err := bpf.Load(cfg)
	if err != nil {
		return nil, err
	}
	w.onClose(objects.Close)
	for _, pod := range n.Pods {
		if err := w.attachProgram(n.NS, slotBase+pod.Slot, "from_endpoint", objects.FromEndpoint); err != nil {
			return nil, err
		}
	}
	if n.WireIdx != 0 {
		if err := w.attachProgram(n.NS, n.WireIdx, "from_netdev", objects.FromNetdev); err != nil {
			return nil, err
		}
	}
	events, err := ringbuf.NewReader(objects.Events)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	w.onClose(events.Close)
	return &weftNode{n, objects, events}, nil
}

// put writes one row of a map.
func put[K, V any](m *ebpf.Map, key K, value V) error {
	if err := m.Put(key, value); err != nil {
		return fmt.Errorf("row of %s: %w", m, err)
	}
	return nil
}

// writeRows tells a node who is where. peer is nil on a single node.
func (n *weftNode) writeRows(peer *Node, tunnel bool) error {
	o := n.objects
	var errs []error
	errs = append(errs,
		put(o.Nodes, uint32(0), nodeRow(n.Node, 0)),
		put(o.Ipcache, addressKey(n.Addr), bpf.IPCacheEntry{Identity: 1, Flags: bpf.IPCacheHost}))
	for _, pod := range n.Pods {
		errs = append(errs,
			put(o.Endpoints, uint32(pod.Slot), endpointRow(pod)),
			put(o.Ipcache, addressKey(pod.Addr), bpf.IPCacheEntry{Identity: identity(pod), Endpoint: uint16(pod.Slot)}))
	}
	if peer != nil {
		const index = 1
		flags := uint32(0)
		if tunnel {
			flags = bpf.NodeTunnel
			if peer.Addr.Is6() {
				flags |= bpf.NodeIPv6
			}
		}
		errs = append(errs, put(o.Nodes, uint32(index), nodeRow(peer, flags)))
		errs = append(errs, put(o.Ipcache, addressKey(peer.Addr), bpf.IPCacheEntry{Identity: 6, Node: index, Flags: bpf.IPCacheNode}))
		for _, pod := range peer.Pods {
			errs = append(errs, put(o.Ipcache, addressKey(pod.Addr), bpf.IPCacheEntry{Identity: identity(pod), Node: index}))
		}
	}
	// Rows first, then the generation: the order that the programs rely on.
	errs = append(errs, put(o.Generation, uint32(0), uint32(afterRows)))
	return errors.Join(errs...)
}

func identity(pod Pod) uint32 { return identityBase + uint32(pod.Slot) }

func addressKey(a netip.Addr) bpf.AddressKey { return bpf.AddressKey{Address: bpf.Address(a)} }

func nodeRow(n *Node, flags uint32) bpf.Node {
	row := bpf.Node{Flags: flags, Mtu: wireMTU}
	if n.Addr.Is4() {
		row.Ipv4 = bpf.Address(n.Addr)
	} else {
		row.Ipv6 = bpf.Address(n.Addr)
	}
	return row
}

func endpointRow(pod Pod) bpf.Endpoint {
	row := bpf.Endpoint{Identity: identity(pod), Mtu: wireMTU}
	copy(row.Mac[:], pod.MAC)
	if pod.Addr.Is4() {
		row.Ipv4 = bpf.Address(pod.Addr)
	} else {
		row.Ipv6 = bpf.Address(pod.Addr)
	}
	return row
}

// forget deletes all flows before a slot of connections, as the agent's collection would within
// seconds: every port of the client is used again in each slot. It also reads the events away: a
// full buffer would make reporting cheaper than it is.
func forget(nodes ...*weftNode) func(Workload) error {
	return func(w Workload) error {
		if w != TCPCRR {
			return nil
		}
		for _, n := range nodes {
			if err := errors.Join(n.forgetFlows(), n.readEvents()); err != nil {
				return err
			}
		}
		return nil
	}
}

// hasFlows checks that packets went through our programs: a program that passes everything on would
// be measured as the kernel's forwarding.
func hasFlows(nodes ...*weftNode) func() error {
	return func() error {
		for _, n := range nodes {
			var key bpf.FlowKey
			if err := n.objects.Flows.NextKey(nil, &key); err != nil {
				return fmt.Errorf("no flow in the table of %s, so it was not our datapath: %w", n.NS.Name(), err)
			}
		}
		return nil
	}
}

// readEvents takes all events that are there.
func (n *weftNode) readEvents() error {
	// Nobody is woken by an event, so a reader must not wait for one.
	n.events.SetDeadline(time.Unix(1, 0))
	var record ringbuf.Record
	for {
		err := n.events.ReadInto(&record)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
	}
}

// forgetFlows empties the flow table of a node.
func (n *weftNode) forgetFlows() error {
	const batch = 16 << 10
	keys, values := make([]bpf.FlowKey, batch), make([]bpf.Flow, batch)
	var cursor ebpf.MapBatchCursor
	for {
		_, err := n.objects.Flows.BatchLookupAndDelete(&cursor, keys, values, nil)
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("forget flows: %w", err)
		}
	}
}

// newWeftPair makes two nodes with our datapath.
func (w *World) newWeftPair(tunnel bool) (a, b *weftNode, err error) {
	left, right, err := w.newPair()
	if err != nil {
		return nil, nil, err
	}
	var made []*weftNode
	for _, n := range [][2]*Node{{left, right}, {right, left}} {
		// The first packet of a flow, and one per second, goes by the node's routes.
		if !tunnel {
			if err := n[0].NS.AddRoute(netns.Route{To: host(n[1].Pods[0].Addr), Via: n[1].Addr}); err != nil {
				return nil, nil, err
			}
		}
		node, err := w.newWeft(n[0])
		if err != nil {
			return nil, nil, err
		}
		if err := node.writeRows(n[1], tunnel); err != nil {
			return nil, nil, err
		}
		made = append(made, node)
	}
	return made[0], made[1], nil
}

func buildNative(w *World) (Path, error) { return w.buildWeft(false) }
func buildVXLAN(w *World) (Path, error)  { return w.buildWeft(true) }

// buildWeft is pod to pod between two nodes with our datapath.
func (w *World) buildWeft(tunnel bool) (Path, error) {
	a, b, err := w.newWeftPair(tunnel)
	if err != nil {
		return Path{}, err
	}
	p := between(a.Pods[0], b.Pods[0])
	p.BeforeSlot, p.Check = forget(a, b), hasFlows(a, b)
	return p, nil
}

// buildLocal is pod to pod on one node with our datapath.
func buildLocal(w *World) (Path, error) {
	single, err := w.newSingle()
	if err != nil {
		return Path{}, err
	}
	n, err := w.newWeft(single)
	if err != nil {
		return Path{}, err
	}
	if err := n.writeRows(nil, false); err != nil {
		return Path{}, err
	}
	p := between(n.Pods[0], n.Pods[1])
	p.BeforeSlot, p.Check = forget(n), hasFlows(n)
	return p, nil
}
