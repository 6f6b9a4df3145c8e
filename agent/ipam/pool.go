// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package ipam hands out the addresses of a node's pod CIDRs. It knows prefixes
// and nothing else: not endpoints, not stores. Only package agent and its
// sub-packages import it.
package ipam

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// Config says what one Pool may hand out.
type Config struct {
	Prefix netip.Prefix
	// Reserved are addresses that are never handed out, besides the network's
	// first one, the gateway (see Gateway) and IPv4's broadcast.
	Reserved []netip.Addr
	// Rest is how long a released address is not handed out again: others in the
	// mesh may still know its former user. Take ignores it.
	Rest time.Duration
}

// Pool hands out the addresses of one prefix, going round, so that a released
// address comes back as late as possible. It is safe for concurrent use.
type Pool struct {
	cfg Config

	mu      sync.Mutex
	used    map[netip.Addr]bool
	resting map[netip.Addr]time.Time // until when
	queue   []rest                   // resting, in order; may name some that rest no more
	last    netip.Addr               // handed out last
}

type rest struct {
	addr  netip.Addr
	until time.Time
}

// An ExhaustedError says that no address is free.
type ExhaustedError struct {
	Prefix        netip.Prefix
	Used, Resting int
	Next          time.Time // when the first resting one is free; zero if none rests
}

func (e *ExhaustedError) Error() string {
	s := fmt.Sprintf("%v: no free address, %d in use", e.Prefix, e.Used)
	if e.Resting > 0 {
		s += fmt.Sprintf(", %d released a moment ago", e.Resting)
	}
	return s
}

// An AddressError says why one address cannot be had.
type AddressError struct {
	Addr   netip.Addr
	Prefix netip.Prefix
	Reason string
}

func (e *AddressError) Error() string { return fmt.Sprintf("address %v: %s", e.Addr, e.Reason) }

// Gateway is the address of the node itself inside the prefix: the first after
// the network's own.
func Gateway(p netip.Prefix) netip.Addr { return p.Masked().Addr().Next() }

// New returns a Pool that has everything free.
func New(cfg Config) *Pool {
	cfg.Prefix = cfg.Prefix.Masked()
	return &Pool{
		cfg: cfg, used: map[netip.Addr]bool{}, resting: map[netip.Addr]time.Time{}, last: Gateway(cfg.Prefix),
	}
}

// Prefix is what the pool hands out of.
func (p *Pool) Prefix() netip.Prefix { return p.cfg.Prefix }

// Allocate hands out a free address, or fails with an *ExhaustedError.
func (p *Pool) Allocate() (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wakeLocked(time.Now())
	a := p.last
	// Of that many different addresses at least one is neither used, nor resting, nor reserved.
	for range len(p.used) + len(p.resting) + len(p.cfg.Reserved) + 4 {
		a = a.Next()
		if !a.IsValid() || !p.cfg.Prefix.Contains(a) {
			a = p.cfg.Prefix.Addr()
		}
		if _, rests := p.resting[a]; !rests && !p.used[a] && p.reservedLocked(a) == "" {
			p.used[a], p.last = true, a
			return a, nil
		}
	}
	err := &ExhaustedError{Prefix: p.cfg.Prefix, Used: len(p.used), Resting: len(p.resting)}
	if len(p.queue) > 0 {
		err.Next = p.queue[0].until
	}
	return netip.Addr{}, err
}

// Take hands out one given address, also a resting one, or fails with an
// *AddressError.
func (p *Pool) Take(a netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !p.cfg.Prefix.Contains(a):
		return &AddressError{a, p.cfg.Prefix, fmt.Sprintf("is outside of the node's %v", p.cfg.Prefix)}
	case p.used[a]:
		return &AddressError{a, p.cfg.Prefix, "is in use"}
	}
	if why := p.reservedLocked(a); why != "" {
		return &AddressError{a, p.cfg.Prefix, why}
	}
	delete(p.resting, a)
	p.used[a] = true
	if a.Compare(p.last) > 0 { // what a restart restores is not reused at once either
		p.last = a
	}
	return nil
}

// Release gives an address back; one that is not in use is ignored.
func (p *Pool) Release(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.used[a] {
		return
	}
	delete(p.used, a)
	if p.cfg.Rest > 0 {
		until := time.Now().Add(p.cfg.Rest)
		p.resting[a] = until
		p.queue = append(p.queue, rest{a, until})
	}
}

// Used counts the addresses that were handed out and not given back.
func (p *Pool) Used() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.used)
}

// Free counts the addresses that can be handed out now; -1 stands for very many.
func (p *Pool) Free() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wakeLocked(time.Now())
	bits := p.cfg.Prefix.Addr().BitLen() - p.cfg.Prefix.Bits()
	if bits > 31 {
		return -1
	}
	reserved := map[netip.Addr]bool{}
	for _, a := range append([]netip.Addr{p.cfg.Prefix.Addr(), Gateway(p.cfg.Prefix), p.broadcast()}, p.cfg.Reserved...) {
		if p.cfg.Prefix.Contains(a) {
			reserved[a] = true
		}
	}
	return 1<<bits - len(reserved) - len(p.used) - len(p.resting)
}

// wakeLocked ends the rest of those whose time has come.
func (p *Pool) wakeLocked(now time.Time) {
	for len(p.queue) > 0 {
		r := p.queue[0]
		until, rests := p.resting[r.addr]
		if rests && until.Equal(r.until) {
			if now.Before(until) {
				return
			}
			delete(p.resting, r.addr)
		}
		p.queue = p.queue[1:] // done, taken meanwhile, or resting anew further back
	}
}

// broadcast is the last address of an IPv4 prefix; IPv6 has none.
func (p *Pool) broadcast() netip.Addr {
	if p.cfg.Prefix.Addr().Is6() {
		return netip.Addr{}
	}
	b := p.cfg.Prefix.Addr().As4()
	for i := p.cfg.Prefix.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

func (p *Pool) reservedLocked(a netip.Addr) string {
	switch {
	case a == p.cfg.Prefix.Addr():
		return "is the network's own"
	case a == Gateway(p.cfg.Prefix):
		return "is the node's own, the gateway of endpoints"
	case a == p.broadcast():
		return "is the network's broadcast"
	}
	for _, r := range p.cfg.Reserved {
		if a == r {
			return "is reserved"
		}
	}
	return ""
}
