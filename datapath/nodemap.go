// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"net/netip"
	"sync"

	"github.com/weft-net/weft/bpf"
)

// nodeMap gives each other node, by its underlay address, an index into the nodes map. An
// index is used again only after no row of the ipcache names it. It may be used from many
// goroutines.
type nodeMap struct {
	rows rowMap[uint32, bpf.Node]
	// pathMTU is the underlay's MTU on the way to a node, 0 if not known.
	pathMTU func(netip.Addr) int
	tunnel  bool // nodes are reached by VXLAN

	mu     sync.Mutex
	self   bpf.Node
	index  map[netip.Addr]uint32
	values map[uint32]bpf.Node // what the kernel has
	next   uint32
	free   []uint32
}

// selfIndex is this node's own row, and means "none" in the rows of others.
const selfIndex = 0

// openNodeMap reads what the kernel has.
func openNodeMap(o *bpf.Objects, tunnel bool, pathMTU func(netip.Addr) int) (*nodeMap, error) {
	n := &nodeMap{
		rows:    rowMap[uint32, bpf.Node]{"nodes", o.Nodes},
		pathMTU: pathMTU,
		tunnel:  tunnel,
		index:   map[netip.Addr]uint32{},
		values:  map[uint32]bpf.Node{},
		next:    1,
	}
	err := n.rows.each(func(keys []uint32, values []bpf.Node) bool {
		for i, k := range keys {
			if k == selfIndex {
				n.self = values[i]
			} else if addr := rowAddr(values[i]); addr.IsValid() {
				n.index[addr], n.values[k] = k, values[i]
				n.next = max(n.next, k+1)
			}
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	for k := range n.next {
		if _, used := n.values[k]; !used && k != selfIndex {
			n.free = append(n.free, k)
		}
	}
	return n, nil
}

// rowAddr is the address of the node that a row is of, the zero Addr for an empty row.
func rowAddr(row bpf.Node) netip.Addr {
	if row.Flags&bpf.NodeIPv6 != 0 {
		return bpf.Addr(row.Ipv6)
	}
	return bpf.Addr(row.Ipv4)
}

// nodeRow is the row of the node at addr, reached by VXLAN or as the underlay's routes say. mtu is
// that of the path in the underlay, 0 if not known.
func nodeRow(addr netip.Addr, tunnel bool, mtu int) bpf.Node {
	row := bpf.Node{Mtu: uint16(mtu)}
	if tunnel {
		row.Flags |= bpf.NodeTunnel
	}
	if addr.Is6() {
		row.Flags |= bpf.NodeIPv6
		row.Ipv6 = bpf.Address(addr)
	} else {
		row.Ipv4 = bpf.Address(addr)
	}
	return row
}

// selfRow is this node's row: the sources of its tunnels.
func selfRow(cfg Config) bpf.Node {
	row := bpf.Node{Ipv4: bpf.Address(addrOf(cfg.NodeIPs, false)), Ipv6: bpf.Address(addrOf(cfg.NodeIPs, true))}
	if cfg.Mode == ModeVXLAN {
		row.Flags |= bpf.NodeTunnel
	}
	if cfg.tunnelIs6() {
		row.Flags |= bpf.NodeIPv6
	}
	return row
}

// setSelf writes this node's row and says whether it was different.
func (n *nodeMap) setSelf(row bpf.Node) (changed bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.self == row {
		return false, nil
	}
	if err := n.writeLocked(selfIndex, row); err != nil {
		return false, err
	}
	n.self = row
	return true, nil
}

// ensure returns the index of the node at an address and writes its row if it is new. The
// zero Addr has index 0.
func (n *nodeMap) ensure(addr netip.Addr) (uint32, error) {
	if !addr.IsValid() {
		return selfIndex, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if k, ok := n.index[addr]; ok {
		return k, n.setModeLocked(k, addr)
	}
	k := n.next
	if len(n.free) > 0 {
		k = n.free[len(n.free)-1]
	} else if k >= n.rows.m.MaxEntries() {
		return 0, &bpf.FullError{Map: n.rows.name, Size: n.rows.m.MaxEntries(), Err: errNoIndex}
	}
	row := nodeRow(addr, n.tunnel, n.pathMTU(addr))
	if err := n.writeLocked(k, row); err != nil {
		return 0, err
	}
	if len(n.free) > 0 {
		n.free = n.free[:len(n.free)-1]
	} else {
		n.next++
	}
	n.index[addr], n.values[k] = k, row
	return k, nil
}

// setModeLocked corrects a row that an earlier run wrote in the other mode.
func (n *nodeMap) setModeLocked(k uint32, addr netip.Addr) error {
	row := nodeRow(addr, n.tunnel, int(n.values[k].Mtu))
	if n.values[k] == row {
		return nil
	}
	if err := n.writeLocked(k, row); err != nil {
		return err
	}
	n.values[k] = row
	return nil
}

var errNoIndex = errors.New("no index is left")

// addr is the node of an index, the zero Addr for 0 and for an index that is not in use.
func (n *nodeMap) addr(k uint32) netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return rowAddr(n.values[k])
}

// refreshMTUs asks for every path again and says whether a row changed.
func (n *nodeMap) refreshMTUs() (changed bool, err error) {
	n.mu.Lock()
	addrs := make([]netip.Addr, 0, len(n.index))
	for a := range n.index {
		addrs = append(addrs, a)
	}
	n.mu.Unlock()
	for _, a := range addrs {
		mtu := n.pathMTU(a)
		if mtu == 0 {
			continue // no route just now: what is known stays
		}
		c, err := n.setMTU(a, mtu)
		if err != nil {
			return changed, err
		}
		changed = changed || c
	}
	return changed, nil
}

func (n *nodeMap) setMTU(addr netip.Addr, mtu int) (changed bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k, ok := n.index[addr]
	if !ok || n.values[k].Mtu == uint16(mtu) {
		return false, nil
	}
	row := nodeRow(addr, n.tunnel, mtu)
	if err := n.writeLocked(k, row); err != nil {
		return false, err
	}
	n.values[k] = row
	return true, nil
}

// release empties the rows of nodes whose index is not used.
func (n *nodeMap) release(used map[uint32]bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for addr, k := range n.index {
		if used[k] {
			continue
		}
		if err := n.writeLocked(k, bpf.Node{}); err != nil {
			return err
		}
		delete(n.index, addr)
		delete(n.values, k)
		n.free = append(n.free, k)
	}
	return nil
}

// len is the number of nodes in the map.
func (n *nodeMap) len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.index)
}

func (n *nodeMap) writeLocked(k uint32, row bpf.Node) error {
	return n.rows.put([]uint32{k}, []bpf.Node{row})[0]
}
