// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstoretest

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy passes TCP on to a server. Frozen, it keeps connections open and passes nothing on: what
// a path that loses every packet looks like. It ends with the test.
type Proxy struct {
	listen net.Listener
	wg     sync.WaitGroup

	mu     sync.Mutex
	target string
	thawed *sync.Cond
	frozen bool
	delay  time.Duration
	closed bool
	conns  map[net.Conn]struct{}
}

func newProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: target, listen: l, conns: map[net.Conn]struct{}{}}
	p.thawed = sync.NewCond(&p.mu)
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		p.closed = true
		p.thawed.Broadcast()
		p.mu.Unlock()
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// Addr is where clients connect.
func (p *Proxy) Addr() string { return p.listen.Addr().String() }

// Freeze stops passing bytes on in both directions. New connections are accepted and starve too.
func (p *Proxy) Freeze() { p.setFrozen(true) }

// Thaw passes on again what arrived meanwhile.
func (p *Proxy) Thaw() { p.setFrozen(false) }

// Part takes clients away from the server until Rejoin: every connection is closed and new ones
// starve.
func (p *Proxy) Part() {
	p.Freeze()
	p.Cut()
}

// Rejoin ends Part. Clients have to connect again.
func (p *Proxy) Rejoin() {
	p.Cut()
	p.Thaw()
}

func (p *Proxy) setFrozen(f bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = f
	p.thawed.Broadcast()
}

// Slow makes whatever passes wait so long, in each direction; the order stays.
func (p *Proxy) Slow(delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = delay
}

// Redirect makes new connections go to another server.
func (p *Proxy) Redirect(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Cut closes every connection; new ones are accepted.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *Proxy) accept() {
	for {
		in, err := p.listen.Accept()
		if err != nil {
			return
		}
		if p.track(in) {
			p.wg.Go(func() { p.connect(in) })
		}
	}
}

// connect goes on to the server once the proxy is not frozen: its listener must not see half a
// connection.
func (p *Proxy) connect(in net.Conn) {
	p.wait()
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	out, err := net.Dial("tcp", target)
	if err != nil || !p.track(out) {
		in.Close() // the server is down
		return
	}
	p.wg.Go(func() { p.pass(in, out) })
	p.pass(out, in)
}

// wait returns when the proxy is not frozen, and not at once where it is slow.
func (p *Proxy) wait() {
	p.mu.Lock()
	delay := p.delay
	p.mu.Unlock()
	time.Sleep(delay) // what a slow path does
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.frozen && !p.closed {
		p.thawed.Wait()
	}
}

func (p *Proxy) track(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.closed {
			c.Close()
			continue
		}
		p.conns[c] = struct{}{}
	}
	return !p.closed
}

func (p *Proxy) pass(from, to net.Conn) {
	defer func() {
		from.Close()
		to.Close()
		p.mu.Lock()
		delete(p.conns, from)
		p.mu.Unlock()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.wait()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
