// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/clustermesh"
)

// remoteStatus judges one other cluster: failed where it is not ready, a warning where it is ready
// and something of it is not in force.
func (a *Agent) remoteStatus(r clustermesh.RemoteStatus) *api.RemoteCluster {
	v := &api.RemoteCluster{
		Name: r.Name, Id: r.ID, State: string(r.Phase), Reason: r.Reason, Endpoints: r.Endpoints,
		Health: api.Health_HEALTH_OK, Confirmed: nanos(r.Heartbeat),
		OurCertificate: nanos(r.Certificates.Ours), ServerCertificate: nanos(r.Certificates.Server),
	}
	var refused []string
	for _, t := range r.Resources {
		sync := &api.TableSync{
			Table: string(t.Resource), Synced: t.Synced, Rows: uint64(t.Rows), Confirmed: nanos(t.Confirmed), Revision: t.Revision,
		}
		if v.Confirmed == 0 || t.Confirmed.UnixNano() < v.Confirmed && !t.Confirmed.IsZero() {
			v.Confirmed = sync.Confirmed
		}
		v.Synced = append(v.Synced, sync)
		if t.Faults > 0 {
			refused = append(refused, fmt.Sprintf("%s: %d rows refused, one is %s: %s", t.Resource, t.Faults, t.LastKey, t.LastReason))
		}
	}
	if r.Phase != clustermesh.PhaseReady {
		v.Health = api.Health_HEALTH_FAILED
		v.Since = nanos(r.LastErrorAt)
		if v.Reason == "" {
			v.Reason = r.LastError
		}
		if kept := a.checkpoints.serving(r.Name); kept != "" {
			v.Reason += "; its rows are in force " + kept
		}
		v.Hint = remoteHint(r.Phase, filepath.Join(a.cfg.ClusterMeshDir, r.Name))
		if r.Copy != nil || r.NoFile {
			v.Hint = "look at the API servers of this cluster, which copy it; its rows stay in force"
		}
		remoteHold(v, r.Hold)
		return v
	}
	if v.Reason != "" {
		v.Health = api.Health_HEALTH_WARNING
		v.Hint = "repair its cluster-config, or correct " + filepath.Join(a.cfg.ClusterMeshDir, r.Name)
	}
	if r.Pin != nil && len(r.Pin.Beside) > 0 {
		v.Health = api.Health_HEALTH_WARNING
		v.Reason = strings.TrimPrefix(v.Reason+"; "+besidePin(r.Pin), "; ")
		v.Hint = "if it has grown, join it again with a token; if not, look into " + r.Name + " before anything else"
	}
	if len(refused) > 0 {
		v.Health = api.Health_HEALTH_WARNING
		v.Reason = strings.TrimPrefix(v.Reason+"; "+strings.Join(refused, "; "), "; ")
		v.Hint = "have these rows repaired there; until then the values before them stay in force"
	}
	remoteHold(v, r.Hold)
	return v
}

// besidePin tells which pod CIDRs a remote declares that it did not join with.
func besidePin(p *clustermesh.PinStatus) string {
	const shown = 3
	some := make([]string, 0, shown)
	for _, c := range p.Beside[:min(len(p.Beside), shown)] {
		some = append(some, c.String())
	}
	text := "its nodes declare pod CIDRs that it did not join with: " + strings.Join(some, ", ")
	if more := len(p.Beside) - len(some); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// remoteHint says what to do about a remote in a phase, whose client file is named.
func remoteHint(phase clustermesh.Phase, file string) string {
	switch phase {
	case clustermesh.PhaseInvalid:
		return "correct " + file
	case clustermesh.PhaseConfiguring:
		return "start its operator, which writes the cluster-config, or correct the file name " + file
	case clustermesh.PhaseRefused:
		return "correct the cluster-config there; nothing of this cluster is taken before"
	case clustermesh.PhaseSyncing:
		return "wait; if it stays, look at the other cluster's operator"
	case clustermesh.PhaseAway:
		return "check its etcd, the network to it, and what " + file + " names; its rows stay in force"
	}
	return "check its etcd, the network to it, and what " + file + " names"
}
