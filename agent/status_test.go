// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/agent/endpoint"
	"github.com/weft-net/weft/clustermesh"
	"github.com/weft-net/weft/internal/netns"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
)

// away is an error of a store as the client returns it.
func away(reason kvstore.Reason) error {
	return fmt.Errorf("watch x: %w", &kvstore.EndpointError{Endpoint: "https://e:1", Reason: reason, Err: errors.New("cause")})
}

// TestStatus_SaysWhatAndWhy: a fault of a store or of another cluster has a line that names it, why,
// and what to do.
func TestStatus_SaysWhatAndWhy(t *testing.T) {
	cfg := Config{ClusterMeshDir: "/mesh"}
	a := &Agent{cfg: cfg, checkpoints: newCheckpoints(cfg, nil, newTables(), nil, nil)}
	lease := kvstore.Lease{ID: 7, Generation: 1}
	synced := kvstore.WatchStatus{Synced: true}
	broken := func(reason kvstore.Reason) kvstore.WatchStatus {
		return kvstore.WatchStatus{Synced: true, LastError: away(reason)}
	}
	remote := func(phase clustermesh.Phase, reason string, resources ...clustermesh.ResourceStatus) *api.StatusLine {
		v := a.remoteStatus(clustermesh.RemoteStatus{Name: "west", Phase: phase, Reason: reason, Resources: resources})
		return &api.StatusLine{Health: v.Health, Summary: v.State, Reason: v.Reason, Hint: v.Hint}
	}
	for _, tt := range []struct {
		name                  string
		line                  *api.StatusLine
		health                api.Health
		summary, reason, hint string
	}{
		{"no-lease-yet", sessionLine(kvstore.SessionStatus{TTL: time.Minute}), api.Health_HEALTH_FAILED, "not connected", "no lease", "wait"},
		{"lease", sessionLine(kvstore.SessionStatus{Lease: lease, TTL: time.Minute}), api.Health_HEALTH_OK, "lease 7, lives 1m0s", "", ""},
		{"unreachable", sessionLine(kvstore.SessionStatus{Lease: lease, LastError: away(kvstore.ReasonUnreachable)}), api.Health_HEALTH_FAILED,
			"away", "https://e:1: unreachable: cause", "check that etcd runs at https://e:1"},
		{"expired", sessionLine(kvstore.SessionStatus{Lease: lease, LastError: away(kvstore.ReasonClientExpired)}), api.Health_HEALTH_FAILED,
			"away", "expired", "put a new certificate"},
		{"another-ca", sessionLine(kvstore.SessionStatus{Lease: lease, LastError: away(kvstore.ReasonServerCA)}), api.Health_HEALTH_FAILED,
			"away", "trusted-ca-file does not hold", "check the certificate files"},
		{"not-allowed", sessionLine(kvstore.SessionStatus{Lease: lease, LastError: away(kvstore.ReasonUnauthorised)}), api.Health_HEALTH_FAILED,
			"away", "may not do this", "weft store init"},
		{"full", storeLine([]namedStore{{"nodes", kvstore.StoreStatus{Pending: 1, LastError: away(kvstore.ReasonFull)}}}), api.Health_HEALTH_FAILED,
			"1 on their way", "the store is full", "compact"},
		{"corrupt", storeLine([]namedStore{{"nodes", kvstore.StoreStatus{Pending: 1, LastError: away(kvstore.ReasonCorrupt)}}}), api.Health_HEALTH_FAILED,
			"1 on their way", "do not hold the same data", "runbooks/member.md"},
		{"watches", watchLine([]namedWatch{{"nodes", synced}, {"ips", synced}}, ""), api.Health_HEALTH_OK, "2 of our cluster", "", ""},
		{"one-cause-told-once", watchLine([]namedWatch{{"nodes", broken(kvstore.ReasonSilent)}, {"ips", broken(kvstore.ReasonSilent)}, {"x", synced}}, ""),
			api.Health_HEALTH_FAILED, "2 of 3", "nodes, ips: https://e:1: connected, but no answer in time: cause", "https://e:1 has a leader"},
		{"never-synced", watchLine([]namedWatch{{"nodes", kvstore.WatchStatus{}}}, ""), api.Health_HEALTH_FAILED, "1 of 1", "nodes (never synced)", "see the line etcd"},
		{"refused-rows", watchLine([]namedWatch{{"ips", kvstore.WatchStatus{Synced: true, Rejections: []kvstore.Rejection{{Key: "k", Reason: "bad"}}}}}, ""),
			api.Health_HEALTH_WARNING, "", "ips: 1 rows refused, one is k: bad", "repair or delete"},
		{"remote-ready", remote(clustermesh.PhaseReady, ""), api.Health_HEALTH_OK, "ready", "", ""},
		{"remote-away", remote(clustermesh.PhaseAway, "why"), api.Health_HEALTH_FAILED, "away", "why", "its rows stay in force"},
		{"remote-without-config", remote(clustermesh.PhaseConfiguring, "why"), api.Health_HEALTH_FAILED, "configuring", "why", "start its operator"},
		{"remote-refused", remote(clustermesh.PhaseRefused, "why"), api.Health_HEALTH_FAILED, "refused", "why", "correct the cluster-config"},
		{"remote-file", remote(clustermesh.PhaseInvalid, "why"), api.Health_HEALTH_FAILED, "invalid", "why", "correct /mesh/west"},
		{"remote-config-went-bad", remote(clustermesh.PhaseReady, "id is ours"), api.Health_HEALTH_WARNING, "ready", "id is ours", "repair its cluster-config"},
		{"remote-bad-rows", remote(clustermesh.PhaseReady, "",
			clustermesh.ResourceStatus{Resource: schema.ResourceIPs, Faults: 2, LastKey: "k", LastReason: "bad"},
			clustermesh.ResourceStatus{Resource: schema.ResourceNodes, Faults: 1, LastKey: "n", LastReason: "worse"}),
			api.Health_HEALTH_WARNING, "ready", "ip: 2 rows refused, one is k: bad; nodes: 1 rows refused, one is n: worse", "have these rows repaired"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := tt.line
			if l.Health != tt.health {
				t.Errorf("health %v, want %v", l.Health, tt.health)
			}
			for _, p := range [][2]string{{l.Summary, tt.summary}, {l.Reason, tt.reason}, {l.Hint, tt.hint}} {
				if !strings.Contains(p[0], p[1]) || p[1] == "" && p[0] != "" && p[0] != l.Summary {
					t.Errorf("got %q, want %q", p[0], p[1])
				}
			}
		})
	}
}

func TestBrokenLine(t *testing.T) {
	missing := &endpoint.RecordError{Path: "/s/3.json", ID: 3, Err: errors.New("is not there")}
	named := &endpoint.RecordError{Path: "/s/x.json", Err: errors.New("bad name")}
	for _, tt := range []struct {
		name   string
		broken []*endpoint.RecordError
		want   string
	}{
		{"one", []*endpoint.RecordError{missing}, "'weft endpoint delete 3'; until then nothing is pruned"},
		{"two", []*endpoint.RecordError{missing, named}, "/s/3.json: is not there; and 1 more"},
		{"no-id", []*endpoint.RecordError{named}, "remove it, and restart the agent; until then nothing is pruned"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := brokenLine(ok("endpoints", ""), tt.broken); !strings.Contains(got.String(), tt.want) || got.Health != api.Health_HEALTH_FAILED {
				t.Errorf("got %v, want %q", got, tt.want)
			}
		})
	}
}

// TestLeft_OnlyNoPinsAreNothing: what cannot be read may be there.
func TestLeft_OnlyNoPinsAreNothing(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	a := &Agent{cfg: Config{BPFFS: t.TempDir(), Node: "a1"}, log: log}
	if left, err := a.leftEndpoints(); err == nil {
		t.Errorf("no BPF file system: %v and no error", left)
	}
	if !a.leftFrontends()(service.Frontend{}) {
		t.Error("no BPF file system: no frontend is left")
	}

	netns.RequireRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	a = &Agent{cfg: Config{BPFFS: dir, Node: "a1"}, log: log}
	if left, err := a.leftEndpoints(); len(left) > 0 || err != nil {
		t.Errorf("first start: %v %v", left, err)
	}
	if a.leftFrontends()(service.Frontend{}) {
		t.Error("first start: a frontend is left")
	}
	if err := os.MkdirAll(filepath.Join(dir, "weft", "a1", "maps1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if left, err := a.leftEndpoints(); err == nil {
		t.Errorf("maps that cannot be opened: %v and no error", left)
	}
	if !a.leftFrontends()(service.Frontend{}) {
		t.Error("maps that cannot be opened: no frontend is left")
	}
}
