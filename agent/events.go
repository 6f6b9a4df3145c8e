// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/agent/endpoint"
)

// eventBacklog is how many events a follower may be behind before it loses some.
const eventBacklog = 4096

// events hands flow events to those who follow them. With no follower an event
// costs a look at a counter; a slow follower loses events, and is told how many.
type events struct {
	mu        sync.Mutex
	followers map[*follower]bool
}

type follower struct {
	filter eventFilter
	queue  chan *api.FlowEvent
	lost   uint64 // under events.mu
}

func newEvents() *events { return &events{followers: map[*follower]bool{}} }

// wanted says that somebody follows.
func (e *events) wanted() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.followers) > 0
}

// publish hands ev to every follower whose filter it passes; it never blocks.
func (e *events) publish(ev *api.FlowEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for f := range e.followers {
		if !f.filter.passes(ev) {
			f.lost += ev.Lost // what was lost before it may have passed
			continue
		}
		mine := ev
		if f.lost > 0 {
			mine = proto.Clone(ev).(*api.FlowEvent)
			mine.Lost += f.lost
		}
		select {
		case f.queue <- mine:
			f.lost = 0
		default:
			f.lost += 1 + ev.Lost
		}
	}
}

// follow sends events until ctx ends or send fails.
func (e *events) follow(ctx context.Context, filter eventFilter, send func(*api.FlowEvent) error) error {
	f := &follower{filter: filter, queue: make(chan *api.FlowEvent, eventBacklog)}
	e.mu.Lock()
	e.followers[f] = true
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.followers, f)
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev := <-f.queue:
			if err := send(ev); err != nil {
				return err
			}
		}
	}
}

// eventFilter is what a MonitorRequest asks for.
type eventFilter struct {
	types    []string
	address  string
	endpoint uint32
}

// eventTypes are the words for types of events.
func eventTypes() []string { return []string{"new", "closed", "refused"} }

func newEventFilter(r *api.MonitorRequest) (eventFilter, error) {
	f := eventFilter{types: r.Types, endpoint: r.Endpoint}
	for _, t := range r.Types {
		if !slices.Contains(eventTypes(), t) {
			return f, &endpoint.SpecError{Field: "type", Reason: fmt.Sprintf("%q is unknown, there are %s", t, strings.Join(eventTypes(), ", "))}
		}
	}
	if r.Address != "" {
		a, err := netip.ParseAddr(r.Address)
		if err != nil {
			return f, &endpoint.SpecError{Field: "address", Reason: fmt.Sprintf("%q is not an address", r.Address)}
		}
		f.address = a.String()
	}
	return f, nil
}

func (f eventFilter) passes(e *api.FlowEvent) bool {
	switch {
	case len(f.types) > 0 && !slices.Contains(f.types, e.Type):
		return false
	case f.address != "" && e.Source.GetAddress() != f.address && e.Destination.GetAddress() != f.address:
		return false
	case f.endpoint != 0 && e.Endpoint != f.endpoint:
		return false
	}
	return true
}
