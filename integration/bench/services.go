// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/bpf"
)

// servicePort is what clients of a virtual address connect to; backends listen on another port, so
// that both address and port are rewritten.
const servicePort = 80

// firstVIP is the address of service 1; the others follow.
func (w *World) firstVIP() netip.Addr { return w.pick("10.96.0.1", "fd96::1") }

func buildService(w *World) (Path, error)    { return w.buildServices(1, 1) }
func buildServices(w *World) (Path, error)   { return w.buildServices(manyServices, 1) }
func buildServiceAny(w *World) (Path, error) { return w.buildServices(manyServices, manyServices) }

// buildServices is native routing to virtual addresses, with n services loaded of which the client
// uses the first used. All have the same one backend.
func (w *World) buildServices(n, used int) (Path, error) {
	a, b, err := w.newWeftPair(false)
	if err != nil {
		return Path{}, err
	}
	backend := b.Pods[0]
	if err := a.writeServices(w.firstVIP(), n, netip.AddrPortFrom(backend.Addr, port)); err != nil {
		return Path{}, err
	}
	return Path{
		Client: a.Pods[0].NS, Server: backend.NS,
		Target: netip.AddrPortFrom(w.firstVIP(), servicePort), Spread: used,
		Listen: netip.AddrPortFrom(backend.Addr, port), BeforeSlot: forget(a, b), Check: hasFlows(a, b),
	}, nil
}

// writeServices loads n services with consecutive addresses, in batches.
func (n *weftNode) writeServices(vip netip.Addr, count int, backend netip.AddrPort) error {
	var (
		frontendKeys []bpf.FrontendKey
		frontends    []bpf.Frontend
		backendKeys  []bpf.BackendKey
		backends     []bpf.Backend
	)
	for id := range uint32(count) {
		id++ // 0 means none
		frontendKeys = append(frontendKeys, bpf.FrontendKey{
			Address: bpf.Address(vip), Port: bpf.Port(servicePort), Protocol: unix.IPPROTO_TCP,
		})
		frontends = append(frontends, bpf.Frontend{Service: id, Count: 1})
		backendKeys = append(backendKeys, bpf.BackendKey{Service: id})
		backends = append(backends, bpf.Backend{Address: bpf.Address(backend.Addr()), Port: bpf.Port(backend.Port())})
		vip = vip.Next()
	}
	if _, err := n.objects.Backends.BatchUpdate(backendKeys, backends, nil); err != nil {
		return fmt.Errorf("load backends: %w", err)
	}
	if _, err := n.objects.Frontends.BatchUpdate(frontendKeys, frontends, nil); err != nil {
		return fmt.Errorf("load frontends: %w", err)
	}
	return put(n.objects.Generation, uint32(0), uint32(afterRows+1))
}
