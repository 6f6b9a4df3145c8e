// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/time/rate"
)

const (
	// maxTalks is how many conversations go on at once.
	maxTalks = 16
	// eachPerSecond and eachBurst bound the connections of one address, allPerSecond and allBurst those
	// of all: a joiner needs one, and a handshake costs about a millisecond.
	eachPerSecond, eachBurst = 5, 20
	allPerSecond, allBurst   = 100, 200
	// maxAddresses is how many addresses are told apart; of more the limit of all has to do.
	maxAddresses = 1024
)

// door lets callers in who may be joiners. Who has not proven to have a token is a stranger. When all
// places are taken the one of them makes room for who comes next that came first of the address which has
// most of them, so that connections which say nothing keep out nobody but each other.
type door struct {
	each rate.Limit // of one address

	mu        sync.Mutex
	all       *rate.Limiter
	talks     int
	strangers []*visit // who came first comes first
	callers   map[netip.Prefix]*rate.Limiter
}

// visit is one caller who was let in.
type visit struct {
	door    *door
	from    netip.Prefix
	over    bool   // the place is free again
	sendOff func() // ends the conversation; it is called without the lock
}

func newDoor() *door {
	return &door{each: eachPerSecond, all: rate.NewLimiter(allPerSecond, allBurst), callers: map[netip.Prefix]*rate.Limiter{}}
}

// enter lets a caller in, nil if it has to stay outside. Whoever makes room for it is sent off.
func (d *door) enter(from netip.Addr, sendOff func()) *visit {
	v, gone := d.place(networkOf(from), sendOff)
	if gone != nil {
		gone.sendOff()
	}
	return v
}

func (d *door) place(from netip.Prefix, sendOff func()) (v, gone *visit) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.allowLocked(from) {
		return nil, nil
	}
	if d.talks >= maxTalks {
		if gone = d.spareLocked(); gone == nil {
			return nil, nil // all of them are joiners
		}
		d.endLocked(gone)
	}
	v = &visit{door: d, from: from, sendOff: sendOff}
	d.talks++
	d.strangers = append(d.strangers, v)
	return v, gone
}

// allowLocked counts a connection.
func (d *door) allowLocked(from netip.Prefix) bool {
	l := d.callers[from]
	if l == nil && len(d.callers) >= maxAddresses {
		for p, other := range d.callers {
			if other.Tokens() >= eachBurst { // it was quiet for long enough to be forgotten
				delete(d.callers, p)
			}
		}
	}
	if l == nil && len(d.callers) < maxAddresses {
		l = rate.NewLimiter(d.each, eachBurst)
		d.callers[from] = l
	}
	return (l == nil || l.Allow()) && d.all.Allow()
}

// spareLocked is the stranger who makes room, nil where there is none.
func (d *door) spareLocked() (first *visit) {
	counts := map[netip.Prefix]int{}
	for _, s := range d.strangers {
		counts[s.from]++
	}
	for _, s := range d.strangers {
		if first == nil || counts[s.from] > counts[first.from] {
			first = s
		}
	}
	return first
}

func (d *door) endLocked(v *visit) {
	if !v.over {
		v.over = true
		d.talks--
	}
	d.strangers = slices.DeleteFunc(d.strangers, func(s *visit) bool { return s == v })
}

// known says that the caller has proven to have a token: it is not sent off for anybody.
func (v *visit) known() {
	v.door.mu.Lock()
	defer v.door.mu.Unlock()
	v.door.strangers = slices.DeleteFunc(v.door.strangers, func(s *visit) bool { return s == v })
}

// leave ends the visit.
func (v *visit) leave() {
	v.door.mu.Lock()
	defer v.door.mu.Unlock()
	v.door.endLocked(v)
}

// networkOf is what counts as one address: one of IPv4, and of IPv6 what one machine gets.
func networkOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // the address of a TCP connection is valid
	return p
}
