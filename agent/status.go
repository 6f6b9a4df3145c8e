// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/agent/endpoint"
	"github.com/weft-net/weft/clustermesh"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// Status judges the node: it asks every part and never waits for one.
func (a *Agent) Status(context.Context) *api.StatusResponse {
	s := &api.StatusResponse{
		Node: a.cfg.Node, Cluster: a.cfg.Cluster, ClusterId: a.cfg.ClusterID, Version: Version(), Started: nanos(a.started),
		Pid: uint32(os.Getpid()), Mode: a.cfg.Mode, Etcd: a.cfg.Etcd, StateDir: a.cfg.StateDir, Bpffs: a.cfg.BPFFS,
	}
	for _, p := range a.cfg.PodCIDRs {
		s.PodCidrs = append(s.PodCidrs, p.String())
	}
	for _, p := range a.cfg.ServiceCIDRs {
		s.ServiceCidrs = append(s.ServiceCidrs, p.String())
	}
	s.Lines = append(s.Lines, a.datapathLines()...)
	s.Lines = append(s.Lines, sessionLine(a.session.Status()))
	s.Lines = append(s.Lines, watchLine(a.watches.status(), a.checkpoints.serving(a.cfg.Cluster)), holdLine(a.guard.Status()), storeLine(a.stores.status()))
	s.Lines = append(s.Lines, a.endpointLine(), a.addressLine(), a.identityLine(), a.serviceLine(), a.meshLine(), a.checkpoints.line(), a.metricsLine())
	for _, r := range a.mesh.Status().Remotes {
		s.Remotes = append(s.Remotes, a.remoteStatus(r))
	}
	return s
}

func ok(component, format string, args ...any) *api.StatusLine {
	return &api.StatusLine{Component: component, Health: api.Health_HEALTH_OK, Summary: fmt.Sprintf(format, args...)}
}

// fail makes a line a bad one.
func fail(l *api.StatusLine, reason, hint string) *api.StatusLine {
	l.Health, l.Reason, l.Hint = api.Health_HEALTH_FAILED, reason, hint
	return l
}

// warn makes a line one that somebody should look at while the node works.
func warn(l *api.StatusLine, reason, hint string) *api.StatusLine {
	l.Health, l.Reason, l.Hint = api.Health_HEALTH_WARNING, reason, hint
	return l
}

func sessionLine(s kvstore.SessionStatus) *api.StatusLine {
	l := ok("etcd", "lease %x, lives %v without us", int64(s.Lease.ID), s.TTL)
	l.Confirmed = nanos(s.Refreshed)
	switch {
	case s.LastError != nil:
		l.Since = nanos(s.LastErrorAt)
		l.Summary = fmt.Sprintf("away, this node's rows stay %v after the last contact", s.TTL)
		return fail(l, s.LastError.Error(), storeHint(s.LastError))
	case s.Lease.Generation == 0:
		l.Summary = "not connected yet"
		return fail(l, "no lease", "wait, or check the endpoints in the etcd client file")
	}
	return l
}

// storeHint says what to do about an error of the store.
func storeHint(err error) string {
	var at *kvstore.EndpointError
	if !errors.As(err, &at) {
		return "see the agent's log"
	}
	switch at.Reason {
	case kvstore.ReasonUnreachable:
		return "check that etcd runs at " + at.Endpoint + " and that the network leads there"
	case kvstore.ReasonSilent:
		return "check that etcd at " + at.Endpoint + " has a leader, a disk that keeps up and memory, and that the network leads there"
	case kvstore.ReasonFull:
		return "weft store relieve --yes compacts and defragments it (docs/runbooks/nospace.md)"
	case kvstore.ReasonCorrupt:
		return "weft store status names the member to replace (docs/runbooks/member.md)"
	case kvstore.ReasonUnauthorised:
		return "give the certificate's name the node role: weft store init"
	case kvstore.ReasonClientExpired:
		return "put a new certificate where the etcd client file says; it is read again at the next connection"
	case kvstore.ReasonServerExpired, kvstore.ReasonServerName:
		return "give etcd at " + at.Endpoint + " a certificate that is valid now and names it"
	}
	return "check the certificate files that the etcd client file names; they are read again at the next connection"
}

// storeProblem is an error without the path that led to it, so that one which is the same for all
// watches is told once.
func storeProblem(err error) string {
	var at *kvstore.EndpointError
	if errors.As(err, &at) {
		return at.Error()
	}
	return err.Error()
}

func watchLine(list []namedWatch, kept string) *api.StatusLine {
	l := ok("tables", "%d of our cluster, synced", len(list))
	away := map[string][]string{} // tables by what is wrong with them
	bad := 0
	var notes []string
	var oldest time.Time
	hint := "see the line etcd"
	for _, w := range list {
		s := w.status
		if oldest.IsZero() || s.LastConfirmed.Before(oldest) {
			oldest = s.LastConfirmed
		}
		name, reason := w.table, ""
		if !s.Synced {
			name, reason = name+" ("+cmp.Or(kept, "never synced")+")", "not connected yet"
		}
		if s.LastError != nil {
			reason, hint = storeProblem(s.LastError), storeHint(s.LastError)
		}
		if reason != "" {
			away[reason] = append(away[reason], name)
			bad++
		}
		if n := len(s.Rejections); n > 0 {
			r := s.Rejections[n-1]
			notes = append(notes, fmt.Sprintf("%s: %d rows refused, one is %s: %s", w.table, n, r.Key, r.Reason))
		}
	}
	l.Confirmed = nanos(oldest)
	switch {
	case bad > 0:
		l.Summary = fmt.Sprintf("%d of %d of our cluster are not up to date; the rows that are there stay in force", bad, len(list))
		var texts []string
		for _, reason := range slices.Sorted(maps.Keys(away)) {
			texts = append(texts, strings.Join(away[reason], ", ")+": "+reason)
		}
		return fail(l, strings.Join(texts, "; "), hint)
	case len(notes) > 0:
		return warn(l, strings.Join(notes, "; "), "repair or delete these keys; the values before stay in force")
	}
	return l
}

func storeLine(list []namedStore) *api.StatusLine {
	rows, pending := 0, 0
	var bad []string
	hint := ""
	for _, s := range list {
		rows += s.status.Rows
		pending += s.status.Pending
		if s.status.LastError != nil && s.status.Pending > 0 {
			bad, hint = append(bad, fmt.Sprintf("%s: %v", s.table, s.status.LastError)), storeHint(s.status.LastError)
		}
	}
	l := ok("published", "%d rows of this node, %d on their way", rows, pending)
	if len(bad) > 0 {
		return fail(l, strings.Join(bad, "; "), hint)
	}
	return l
}

func (a *Agent) endpointLine() *api.StatusLine {
	ready, other := 0, []string{}
	for _, e := range a.endpoints.List() {
		switch {
		case e.Phase == endpoint.Live && e.Identity != 0 && e.Reason == "":
			if err := a.endpointError(e.ID); err != nil {
				other = append(other, fmt.Sprintf("%v: %v", e.FullName(), err))
				continue
			}
			ready++
		default:
			other = append(other, strings.TrimSuffix(fmt.Sprintf("%v: %s: %s", e.FullName(), e.State(), e.Reason), ": "))
		}
	}
	l := ok("endpoints", "%d work", ready)
	if broken := a.endpoints.Broken(); len(broken) > 0 {
		return brokenLine(l, broken)
	}
	if len(other) > 0 {
		l.Summary = fmt.Sprintf("%d work, %d do not", ready, len(other))
		return fail(l, strings.Join(first(other, 3), "; "), "weft endpoint list")
	}
	return l
}

// brokenLine says which files of endpoints are bad or missing, and what to do.
func brokenLine(l *api.StatusLine, broken []*endpoint.RecordError) *api.StatusLine {
	reason, hint := broken[0].Error(), "repair it, or remove it, and restart the agent"
	if n := len(broken) - 1; n > 0 {
		reason += fmt.Sprintf("; and %d more", n)
	}
	if id := broken[0].ID; id != 0 {
		hint = fmt.Sprintf("put a good one there and restart the agent, or 'weft endpoint delete %d'", id)
	}
	return fail(l, reason, hint+"; until then nothing is pruned")
}

// endpointError says why an endpoint is not as it should be in the kernel or, for
// another reason than that the store is away, in the store.
func (a *Agent) endpointError(id endpoint.ID) error {
	if o, found := a.datapath.EndpointOutcome(uint16(id)); found && o.Err != nil {
		return o.Err
	}
	o, found := a.stores.endpoints.Outcome(schema.EndpointKey{Cluster: a.cfg.Cluster, Node: a.cfg.Node, ID: uint32(id)})
	if found && errors.Is(o.Err, kvstore.ErrOverwritten) {
		return o.Err
	}
	return nil
}

func (a *Agent) addressLine() *api.StatusLine {
	var parts, full []string
	for _, p := range a.pools {
		free := p.Free()
		text := fmt.Sprintf("%v: %d in use", p.Prefix(), p.Used())
		if free >= 0 {
			text += fmt.Sprintf(", %d free", free)
		}
		parts = append(parts, text)
		if free == 0 {
			full = append(full, p.Prefix().String())
		}
	}
	l := ok("addresses", "%s", strings.Join(parts, "; "))
	if len(full) > 0 {
		return fail(l, strings.Join(full, ", ")+" has no free address", "delete endpoints, or give the node a larger pod CIDR")
	}
	return l
}

func (a *Agent) identityLine() *api.StatusLine {
	s := a.allocator.Stats()
	l := ok("identities", "%d in use here, %d in the mesh", a.allocator.Held().Len(), a.tables.identities.Len())
	if s.LastError != nil && s.Pending > 0 {
		l.Summary += fmt.Sprintf(", %d wait for the store", s.Pending)
		return fail(l, s.LastError.Error(), storeHint(s.LastError)+"; endpoints with known numbers work")
	}
	return l
}

func (a *Agent) serviceLine() *api.StatusLine {
	l := ok("services", "%d with %d frontends", a.tables.services.Len(), a.tables.frontends.Len())
	var odd, bad []string
	for row := range a.tables.services.All() {
		for _, p := range row.Value.Problems {
			odd = append(odd, fmt.Sprintf("%v: %v", row.Key, p))
		}
	}
	for row := range a.tables.frontends.All() {
		if o, found := a.datapath.FrontendOutcome(row.Key); found && o.Err != nil {
			bad = append(bad, fmt.Sprintf("%v: %v", row.Key, o.Err))
		}
	}
	switch {
	case len(bad) > 0:
		return fail(l, strings.Join(first(bad, 3), "; "), "weft service list")
	case len(odd) > 0: // whoever wrote it must look; the node cannot help
		return warn(l, strings.Join(first(odd, 3), "; "), "correct the definition: weft service add -f")
	}
	return l
}

func (a *Agent) meshLine() *api.StatusLine {
	s := a.mesh.Status()
	switch {
	case s.Directory.Problem != "":
		return fail(ok("mesh", "%d clusters, as they were", len(s.Remotes)), s.Directory.Problem, "check "+s.Directory.Path)
	case len(s.Remotes) == 0 && a.cfg.ClusterMeshDir == "":
		return off("mesh", "no other clusters", "")
	case len(s.Remotes) == 0:
		return off("mesh", "no other clusters", "put an etcd client file named after the cluster into "+a.cfg.ClusterMeshDir)
	}
	ready := 0
	for _, r := range s.Remotes {
		if r.Phase == clustermesh.PhaseReady {
			ready++
		}
	}
	l := ok("mesh", "%d of %d other clusters ready", ready, len(s.Remotes))
	if ready < len(s.Remotes) {
		return warn(l, "the lines of the others say why", "weft mesh status")
	}
	return l
}

func (a *Agent) metricsLine() *api.StatusLine {
	if a.cfg.Metrics == "" {
		return off("metrics", "off", "")
	}
	return ok("metrics", "http://%s/metrics", a.cfg.Metrics)
}

func off(component, summary, hint string) *api.StatusLine {
	return &api.StatusLine{Component: component, Health: api.Health_HEALTH_OFF, Summary: summary, Hint: hint}
}

// first cuts a list that would be too long for a line.
func first(list []string, n int) []string {
	if len(list) <= n {
		return list
	}
	return append(list[:n:n], fmt.Sprintf("and %d more", len(list)-n))
}
