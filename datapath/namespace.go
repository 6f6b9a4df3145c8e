// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"io/fs"
	"sync"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/internal/netns"
	"github.com/weft-net/weft/state"
)

// namespaceOps writes which network namespaces the programs at sockets serve: that of the node, and
// those of its endpoints. It implements state.Ops for the table of endpoints.
type namespaceOps struct {
	rows rowMap[uint64, bpf.Namespace]
	node uint64 // cookie of the node's own, whose row is not an endpoint's

	mu    sync.Mutex
	known map[uint16]uint64 // cookies by slot, as the map has them
}

// openNamespaces takes over the rows of an earlier run and writes that of the node. Without endpoints
// theirs are removed.
func openNamespaces(s *bpf.Sockets, h *host, endpoints bool) (*namespaceOps, error) {
	node, err := h.ns.Cookie()
	if err != nil {
		return nil, err
	}
	ops := &namespaceOps{
		rows:  rowMap[uint64, bpf.Namespace]{"namespaces", s.Namespaces},
		node:  node,
		known: map[uint16]uint64{},
	}
	var stale []uint64
	err = ops.rows.each(func(keys []uint64, values []bpf.Namespace) bool {
		for i, cookie := range keys {
			slot := uint16(values[i].Slot)
			switch _, twice := ops.known[slot]; {
			case cookie == node:
			case !endpoints || slot == 0 || twice:
				stale = append(stale, cookie)
			default:
				ops.known[slot] = cookie
			}
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	for _, err := range ops.rows.put([]uint64{node}, []bpf.Namespace{{}}) {
		return nil, err
	}
	for _, err := range ops.rows.delete(stale) {
		return nil, err
	}
	return ops, nil
}

// Update implements state.Ops. An endpoint without a namespace that can be found is served by the packet.
func (ops *namespaceOps) Update(_ context.Context, rows []state.Row[uint16, LocalEndpoint]) map[uint16]error {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	errs := map[uint16]error{}
	for _, r := range rows {
		if err := ops.writeLocked(r.Key, r.Value.NetNSPath); err != nil {
			errs[r.Key] = err
		}
	}
	return errs
}

func (ops *namespaceOps) writeLocked(slot uint16, path string) error {
	cookie, err := cookieAt(path)
	if err != nil {
		return err
	}
	if have := ops.known[slot]; have != 0 && have != cookie {
		if err := ops.removeLocked(slot); err != nil {
			return err
		}
	}
	if cookie == 0 || cookie == ops.node || ops.known[slot] == cookie {
		return nil
	}
	for _, err := range ops.rows.put([]uint64{cookie}, []bpf.Namespace{{Slot: uint32(slot)}}) {
		return err
	}
	ops.known[slot] = cookie
	return nil
}

// cookieAt is the cookie of the namespace at a path, 0 if there is none.
func cookieAt(path string) (uint64, error) {
	if path == "" {
		return 0, nil
	}
	ns, err := netns.OpenPath(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	return ns.Cookie()
}

func (ops *namespaceOps) removeLocked(slot uint16) error {
	cookie, ok := ops.known[slot]
	if !ok {
		return nil
	}
	for _, err := range ops.rows.delete([]uint64{cookie}) {
		return err
	}
	delete(ops.known, slot)
	return nil
}

// Delete implements state.Ops.
func (ops *namespaceOps) Delete(_ context.Context, slots []uint16) map[uint16]error {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	errs := map[uint16]error{}
	for _, slot := range slots {
		if err := ops.removeLocked(slot); err != nil {
			errs[slot] = err
		}
	}
	return errs
}

// Prune implements state.Ops.
func (ops *namespaceOps) Prune(_ context.Context, want func(uint16) (LocalEndpoint, bool)) error {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	for slot := range ops.known {
		if _, ok := want(slot); ok {
			continue
		}
		if err := ops.removeLocked(slot); err != nil {
			return err
		}
	}
	return nil
}
