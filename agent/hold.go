// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/kvstore"
)

// holdLine tells whether rows are in force that our store does not have, why, and who decides.
func holdLine(s kvstore.GuardStatus) *api.StatusLine {
	l := ok("hold", "nothing held")
	l.Confirmed = nanos(s.Checked)
	if !s.Hold.Holding {
		if s.FileError != nil {
			return warn(l, s.FileError.Error(), "without it a store that was replaced while the agent was down is not recognised; make state-dir writable")
		}
		return l
	}
	var kinds, waiting []string
	for _, k := range s.Hold.Kinds {
		kinds = append(kinds, fmt.Sprintf("%d %s", k.Rows, k.Resource))
	}
	for _, o := range s.Hold.Owners {
		if !o.Confirmed {
			waiting = append(waiting, o.Name)
		}
	}
	l.Summary = fmt.Sprintf("%d rows in force that the store does not have", s.Hold.Rows)
	if len(kinds) > 0 {
		l.Summary += ": " + strings.Join(kinds, ", ")
	}
	l.Since = nanos(s.Hold.Since)
	reason := s.Hold.Reason
	if len(waiting) > 0 {
		reason += "; waits for the word of " + strings.Join(first(waiting, 5), ", ")
	}
	decide := "'weft store hold list' shows them; 'weft store adopt' gives them up, 'weft store reseed' writes them back"
	if s.Hold.Stuck {
		return fail(l, reason+"; too many are silent for it to end by itself", decide)
	}
	return warn(l, reason, fmt.Sprintf("start what was stopped; the rest is given up after %v with a connected store; %s", s.Hold.Left.Round(time.Second), decide))
}

// HoldList implements the API.
func (s *server) HoldList(_ context.Context, r *api.HoldListRequest) (*api.HoldListResponse, error) {
	limit := 1000
	if r.Limit > 0 {
		limit = int(min(r.Limit, 100_000))
	}
	st, d := s.guard.Status(), s.guard.Difference(limit)
	reply := &api.HoldListResponse{
		Cluster: st.Cluster, Lineage: string(st.Lineage), Epoch: st.Epoch, Holding: st.Hold.Holding, Since: nanos(st.Hold.Since),
		Reason: st.Hold.Reason, Rows: uint64(d.Rows), Stuck: st.Hold.Stuck, LeftNanos: int64(st.Hold.Left),
	}
	for _, k := range d.Kinds {
		reply.Kinds = append(reply.Kinds, &api.HeldKind{Resource: k.Resource, Rows: uint64(k.Rows)})
	}
	for _, o := range d.Owners {
		reply.Owners = append(reply.Owners, &api.HeldOwner{Name: o.Name, Rows: uint64(o.Rows), Confirmed: o.Confirmed})
	}
	for _, h := range d.Keys {
		reply.Held = append(reply.Held, &api.HeldRow{Key: h.Key, Resource: h.Resource, Owner: h.Owner, Since: nanos(h.Since), Why: string(h.Why)})
	}
	return reply, nil
}

// HoldAdopt implements the API.
func (s *server) HoldAdopt(ctx context.Context, r *api.HoldAdoptRequest) (*api.HoldAdoptResponse, error) {
	done, all, err := s.guard.Adopt(ctx, r.By)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &api.HoldAdoptResponse{Rows: uint64(done.Rows), Everywhere: all}, nil
}

// HoldReseed implements the API.
func (s *server) HoldReseed(ctx context.Context, _ *api.HoldReseedRequest) (*api.HoldReseedResponse, error) {
	written, err := s.guard.Reseed(ctx)
	if err != nil {
		return nil, status.Error(codes.Unavailable, fmt.Sprintf("%v, after %d rows", err, written))
	}
	return &api.HoldReseedResponse{Written: uint64(written)}, nil
}

// holdCollector reports what a guard holds.
type holdCollector struct {
	guard                            *kvstore.Guard
	active, rows, unconfirmed, stuck *prometheus.Desc
}

func newHoldCollector(g *kvstore.Guard) holdCollector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("weft_hold_"+name, help, []string{"cluster"}, nil)
	}
	return holdCollector{
		g, desc("active", "1 while rows of a cluster are in force that its store does not have, or may not."),
		desc("rows", "Rows in force that the store does not have."),
		desc("unconfirmed_owners", "Owners of held rows that have not spoken since."),
		desc("stuck", "1 if a hold does not end by itself: a person must decide."),
	}
}

// Describe implements prometheus.Collector.
func (c holdCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.active, c.rows, c.unconfirmed, c.stuck} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c holdCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.guard.Status()
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, s.Cluster)
	}
	gauge(c.active, one(s.Hold.Holding))
	gauge(c.rows, float64(s.Hold.Rows))
	gauge(c.unconfirmed, float64(s.Hold.Unconfirmed))
	gauge(c.stuck, one(s.Hold.Stuck))
}
