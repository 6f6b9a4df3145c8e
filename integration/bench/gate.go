// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net"
	"sync"
	"time"
)

// gate stands between clients and a store and can be shut, as a cable can be pulled. What passes
// is copied by the kernel, so that it costs both sides of a comparison next to nothing.
type gate struct {
	target string
	addr   string
	wg     sync.WaitGroup

	mu     sync.Mutex
	listen net.Listener // nil: shut
	conns  map[net.Conn]struct{}
	passed time.Time // when the first client since the last open had reached the target
}

// newGate returns an open gate to an address, on a port of its own.
func newGate(target string) (*gate, error) {
	g := &gate{target: target, addr: "127.0.0.1:0", conns: map[net.Conn]struct{}{}}
	return g, g.open()
}

// open lets clients through.
func (g *gate) open() error {
	l, err := net.Listen("tcp", g.addr)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.addr, g.listen, g.passed = l.Addr().String(), l, time.Time{}
	g.wg.Go(func() { g.accept(l) })
	return nil
}

// shut cuts whoever is connected and refuses everybody else. It returns when nothing passes.
func (g *gate) shut() {
	g.mu.Lock()
	if g.listen != nil {
		g.listen.Close()
		g.listen = nil
	}
	for c := range g.conns {
		c.Close()
	}
	g.mu.Unlock()
	g.wg.Wait()
}

// first is when the first client since the last open had reached the store; zero if none has.
func (g *gate) first() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.passed
}

func (g *gate) accept(l net.Listener) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", g.target)
		if err != nil {
			in.Close() // the store is down
			continue
		}
		if !g.track(l, in, out) {
			return
		}
		g.wg.Go(func() { g.pass(in, out) })
		g.wg.Go(func() { g.pass(out, in) })
	}
}

// track notes a pair of connections, unless the gate was shut meanwhile.
func (g *gate) track(l net.Listener, in, out net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listen != l {
		in.Close()
		out.Close()
		return false
	}
	if g.passed.IsZero() {
		g.passed = time.Now()
	}
	g.conns[in], g.conns[out] = struct{}{}, struct{}{}
	return true
}

func (g *gate) pass(from, to net.Conn) {
	io.Copy(to, from) // ends with either side
	from.Close()
	to.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, from)
}
