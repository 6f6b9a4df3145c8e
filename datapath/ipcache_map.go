// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"net/netip"
	"sync"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/state"
)

// ipcacheOps writes entries into the maps ipcache (addresses) and ipcache_prefix (prefixes).
type ipcacheOps struct {
	exact    rowMap[bpf.AddressKey, bpf.IPCacheEntry]
	prefixes rowMap[bpf.PrefixKey, bpf.IPCacheEntry]
	nodes    *nodeMap
	gen      *generation

	mu sync.Mutex // held while rows and the indexes that they name may disagree
	// found is what an earlier run left, until the first prune: rows that are right already need
	// no write and make no flow stale.
	found map[netip.Prefix]bpf.IPCacheEntry
}

func openIPCache(o *bpf.Objects, nodes *nodeMap, gen *generation) (*ipcacheOps, error) {
	ops := &ipcacheOps{
		exact:    rowMap[bpf.AddressKey, bpf.IPCacheEntry]{"ipcache", o.Ipcache},
		prefixes: rowMap[bpf.PrefixKey, bpf.IPCacheEntry]{"ipcache_prefix", o.IpcachePrefix},
		nodes:    nodes,
		gen:      gen,
		found:    map[netip.Prefix]bpf.IPCacheEntry{},
	}
	err := ops.each(func(p netip.Prefix, v bpf.IPCacheEntry) { ops.found[p] = v })
	return ops, err
}

// ipcacheValue is the kernel's row for an entry whose node has the index node.
func ipcacheValue(e IPCacheEntry, node uint32) bpf.IPCacheEntry {
	v := bpf.IPCacheEntry{Identity: e.Identity, Node: node, Endpoint: e.Slot}
	switch e.Kind {
	case KindSelf:
		v.Flags = bpf.IPCacheHost
	case KindNode:
		v.Flags = bpf.IPCacheNode
	}
	return v
}

// each calls f for every row of both maps.
func (ops *ipcacheOps) each(f func(netip.Prefix, bpf.IPCacheEntry)) error {
	err := ops.exact.each(func(keys []bpf.AddressKey, values []bpf.IPCacheEntry) bool {
		for i, k := range keys {
			f(hostPrefix(bpf.Addr(k.Address)), values[i])
		}
		return true
	})
	if err != nil {
		return err
	}
	return ops.prefixes.each(func(keys []bpf.PrefixKey, values []bpf.IPCacheEntry) bool {
		for i, k := range keys {
			f(prefixOfKey(k), values[i])
		}
		return true
	})
}

// prefixOfKey is the reverse of bpf.Prefix. ::/0 is an IPv6 prefix, ::ffff:0:0/96 is 0.0.0.0/0.
func prefixOfKey(k bpf.PrefixKey) netip.Prefix {
	a := netip.AddrFrom16(k.Address)
	if a.Is4In6() && k.Length >= 96 {
		return netip.PrefixFrom(a.Unmap(), int(k.Length)-96)
	}
	return netip.PrefixFrom(a, int(k.Length))
}

// Update implements state.Ops.
func (ops *ipcacheOps) Update(_ context.Context, rows []state.Row[netip.Prefix, IPCacheEntry]) map[netip.Prefix]error {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	errs := map[netip.Prefix]error{}
	var exact []bpf.AddressKey
	var exactOf, prefixOf []netip.Prefix
	var prefixes []bpf.PrefixKey
	var exactValues, prefixValues []bpf.IPCacheEntry
	for _, r := range rows {
		node, err := ops.nodes.ensure(r.Value.Node)
		if err != nil {
			errs[r.Key] = err
			continue
		}
		v := ipcacheValue(r.Value, node)
		if have, ok := ops.found[r.Key]; ok && have == v {
			continue
		}
		if r.Key.IsSingleIP() {
			exactOf = append(exactOf, r.Key)
			exact = append(exact, bpf.AddressKey{Address: bpf.Address(r.Key.Addr())})
			exactValues = append(exactValues, v)
		} else {
			prefixOf = append(prefixOf, r.Key)
			prefixes = append(prefixes, bpf.Prefix(r.Key))
			prefixValues = append(prefixValues, v)
		}
	}
	if len(exact)+len(prefixes) == 0 {
		return errs
	}
	for i, err := range ops.exact.put(exact, exactValues) {
		errs[exactOf[i]] = err
	}
	for i, err := range ops.prefixes.put(prefixes, prefixValues) {
		errs[prefixOf[i]] = err
	}
	ops.forget(exactOf)
	ops.forget(prefixOf)
	ops.gen.Mark()
	return errs
}

// Delete implements state.Ops.
func (ops *ipcacheOps) Delete(_ context.Context, keys []netip.Prefix) map[netip.Prefix]error {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	return ops.deleteLocked(keys)
}

func (ops *ipcacheOps) deleteLocked(keys []netip.Prefix) map[netip.Prefix]error {
	errs := map[netip.Prefix]error{}
	var exact []bpf.AddressKey
	var exactOf, prefixOf []netip.Prefix
	var prefixes []bpf.PrefixKey
	for _, p := range keys {
		if p.IsSingleIP() {
			exactOf, exact = append(exactOf, p), append(exact, bpf.AddressKey{Address: bpf.Address(p.Addr())})
		} else {
			prefixOf, prefixes = append(prefixOf, p), append(prefixes, bpf.Prefix(p))
		}
	}
	for i, err := range ops.exact.delete(exact) {
		errs[exactOf[i]] = err
	}
	for i, err := range ops.prefixes.delete(prefixes) {
		errs[prefixOf[i]] = err
	}
	ops.forget(keys)
	ops.gen.Mark()
	return errs
}

// forget drops what was found of keys that have been written since.
func (ops *ipcacheOps) forget(keys []netip.Prefix) {
	if len(ops.found) == 0 {
		return
	}
	for _, p := range keys {
		delete(ops.found, p)
	}
}

// removeSlot deletes the rows of addresses that lead to an endpoint's slot.
func (ops *ipcacheOps) removeSlot(slot uint16, addrs []netip.Addr) error {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	for _, a := range addrs {
		var v bpf.IPCacheEntry
		key := bpf.AddressKey{Address: bpf.Address(a)}
		if ops.exact.m.Lookup(key, &v) != nil || v.Endpoint != slot {
			continue
		}
		for _, err := range ops.deleteLocked([]netip.Prefix{hostPrefix(a)}) {
			return err
		}
	}
	return nil
}

// Prune implements state.Ops. It also frees the indexes of nodes that nothing leads to.
func (ops *ipcacheOps) Prune(_ context.Context, want func(netip.Prefix) (IPCacheEntry, bool)) error {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	ops.found = nil
	var stale []netip.Prefix
	err := ops.each(func(p netip.Prefix, _ bpf.IPCacheEntry) {
		if _, ok := want(p); !ok {
			stale = append(stale, p)
		}
	})
	if err != nil {
		return err
	}
	for _, err := range ops.deleteLocked(stale) {
		return err
	}
	return ops.releaseNodesLocked()
}

// releaseNodes frees the indexes of nodes that no row leads to any more.
func (ops *ipcacheOps) releaseNodes() error {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	return ops.releaseNodesLocked()
}

func (ops *ipcacheOps) releaseNodesLocked() error {
	used := map[uint32]bool{}
	if err := ops.each(func(_ netip.Prefix, v bpf.IPCacheEntry) { used[v.Node] = true }); err != nil {
		return err
	}
	// No flow may lead to an index when that is given to another node.
	if err := ops.gen.Raise(); err != nil {
		return err
	}
	return ops.nodes.release(used)
}
