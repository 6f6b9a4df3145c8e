// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	if s.Hold.Settling > 0 {
		l.Summary += fmt.Sprintf("; %d rows settle: the leases of their owners have just ended", s.Hold.Settling)
	}
	l.Confirmed = nanos(s.Checked)
	if !s.Hold.Holding {
		if s.FileError != nil {
			return warn(l, s.FileError.Error(), "without it a store that was replaced while the agent was down is not recognised; see that the agent can read and write state-dir; a damaged file was written anew, and what it held is not known")
		}
		return l
	}
	reason := ""
	l.Summary, reason = holdText(s.Hold)
	l.Since = nanos(s.Hold.Since)
	decide := "'weft store hold list' shows them; 'weft store adopt' gives them up, 'weft store reseed' writes them back"
	if s.Hold.Stuck {
		return fail(l, reason+"; too many are silent for it to end by itself", decide)
	}
	return warn(l, reason, fmt.Sprintf("start what was stopped; the rest is given up after %v with a connected store; %s", s.Hold.Left.Round(time.Second), decide))
}

// holdText says what is held, and why and whose word it waits for.
func holdText(h kvstore.HoldStatus) (summary, reason string) {
	var kinds, waiting []string
	for _, k := range h.Kinds {
		kinds = append(kinds, fmt.Sprintf("%d %s", k.Rows, k.Resource))
	}
	for _, o := range h.Owners {
		if !o.Confirmed {
			waiting = append(waiting, o.Name)
		}
	}
	summary = fmt.Sprintf("%d rows in force that the store does not have", h.Rows)
	if len(kinds) > 0 {
		summary += ": " + strings.Join(kinds, ", ")
	}
	if reason = h.Reason; len(waiting) > 0 {
		reason += "; waits for the word of " + strings.Join(first(waiting, 5), ", ")
	}
	return summary, reason
}

// remoteHold adds to the line of another cluster what is held of it. The decision is that cluster's;
// this node can only give up for itself.
func remoteHold(v *api.RemoteCluster, h kvstore.HoldStatus) {
	if v.Held = uint64(h.Rows); !h.Holding {
		return
	}
	summary, reason := holdText(h)
	text := fmt.Sprintf("%s: %s", summary, reason)
	hint := fmt.Sprintf("start what was stopped there, or decide there; 'weft store hold list --cluster %s' shows them, 'weft store adopt --cluster %s' gives them up on this node", v.Name, v.Name)
	switch {
	case h.Stuck:
		v.Health = api.Health_HEALTH_FAILED
		text += "; too many are silent for it to end by itself"
	case v.Health == api.Health_HEALTH_OK:
		v.Health = api.Health_HEALTH_WARNING
	}
	v.Reason = strings.TrimPrefix(v.Reason+"; "+text, "; ")
	if v.Hint = strings.TrimPrefix(v.Hint+"; "+hint, "; "); v.Since == 0 {
		v.Since = nanos(h.Since)
	}
}

// guard is that of a cluster's store; "" is ours.
func (s *server) guard(cluster string) (*kvstore.Guard, error) {
	guards := s.guards()
	if cluster == "" {
		cluster = s.cluster
	}
	if g := guards[cluster]; g != nil {
		return g, nil
	}
	return nil, status.Errorf(codes.NotFound, "cluster %s: not in the mesh of this node, which has %s",
		cluster, strings.Join(slices.Sorted(maps.Keys(guards)), ", "))
}

// HoldList implements the API.
func (s *server) HoldList(_ context.Context, r *api.HoldListRequest) (*api.HoldListResponse, error) {
	limit := 1000
	if r.Limit > 0 {
		limit = int(min(r.Limit, 100_000))
	}
	guard, err := s.guard(r.Cluster)
	if err != nil {
		return nil, err
	}
	st, d := guard.Status(), guard.Difference(limit)
	reply := &api.HoldListResponse{
		Cluster: st.Cluster, Lineage: string(st.Lineage), Epoch: st.Epoch, Holding: st.Hold.Holding, Since: nanos(st.Hold.Since),
		Reason: st.Hold.Reason, Rows: uint64(d.Rows), Stuck: st.Hold.Stuck, LeftNanos: int64(st.Hold.Left),
		Settling: uint64(st.Hold.Settling),
	}
	for _, k := range d.Kinds {
		reply.Kinds = append(reply.Kinds, &api.HeldKind{Resource: k.Resource, Rows: uint64(k.Rows)})
	}
	for _, o := range d.Owners {
		reply.Owners = append(reply.Owners, &api.HeldOwner{Name: o.Name, Rows: uint64(o.Rows), Confirmed: o.Confirmed})
	}
	for _, h := range d.Keys {
		reply.Held = append(reply.Held, &api.HeldRow{Key: h.Key, Resource: h.Resource, Owner: h.Owner, Since: nanos(h.Since), Why: string(h.Why), Settling: h.Settling})
	}
	return reply, nil
}

// HoldAdopt implements the API.
func (s *server) HoldAdopt(ctx context.Context, r *api.HoldAdoptRequest) (*api.HoldAdoptResponse, error) {
	guard, err := s.guard(r.Cluster)
	if err != nil {
		return nil, err
	}
	done, all, err := guard.Adopt(ctx, r.By)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &api.HoldAdoptResponse{Rows: uint64(done.Rows), Everywhere: all}, nil
}

// HoldReseed implements the API.
func (s *server) HoldReseed(ctx context.Context, r *api.HoldReseedRequest) (*api.HoldReseedResponse, error) {
	guard, err := s.guard(r.Cluster)
	if err != nil {
		return nil, err
	}
	written, err := guard.Reseed(ctx)
	if errors.Is(err, kvstore.ErrReadOnly) {
		return nil, status.Errorf(codes.FailedPrecondition, "%v: reseed there, or adopt here", err)
	}
	var denied *kvstore.EndpointError
	if errors.As(err, &denied) && denied.Reason == kvstore.ReasonUnauthorised {
		return nil, status.Errorf(codes.PermissionDenied, "%v; %d rows were written", err, written)
	}
	if err != nil {
		return nil, status.Error(codes.Unavailable, fmt.Sprintf("%v, after %d rows", err, written))
	}
	return &api.HoldReseedResponse{Written: uint64(written)}, nil
}

// holdCollector reports what guards hold.
type holdCollector struct {
	guards                           func() map[string]*kvstore.Guard
	active, rows, unconfirmed, stuck *prometheus.Desc
}

func newHoldCollector(guards func() map[string]*kvstore.Guard) holdCollector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("weft_hold_"+name, help, []string{"cluster"}, nil)
	}
	return holdCollector{
		guards, desc("active", "1 while rows of a cluster are in force that its store does not have, or may not."),
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
	for cluster, g := range c.guards() {
		hold := g.Status().Hold
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, cluster)
		}
		gauge(c.active, one(hold.Holding))
		gauge(c.rows, float64(hold.Rows))
		gauge(c.unconfirmed, float64(hold.Unconfirmed))
		gauge(c.stuck, one(hold.Stuck))
	}
}
