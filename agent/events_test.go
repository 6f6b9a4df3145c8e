// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/datapath"
	"github.com/weft-net/weft/kvstore/schema"
)

func event(kind, source string) *api.FlowEvent {
	return &api.FlowEvent{Type: kind, Source: &api.FlowEnd{Address: source}, Destination: &api.FlowEnd{Address: "10.0.0.9"}, Endpoint: 4}
}

func TestEvents_SlowFollowerIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEvents()
		if e.wanted() {
			t.Error("wanted by nobody")
		}
		ctx, cancel := context.WithCancel(t.Context())
		gate, got := make(chan bool), []uint64(nil)
		done := make(chan error)
		go func() {
			done <- e.follow(ctx, eventFilter{types: []string{"new"}}, func(ev *api.FlowEvent) error {
				<-gate
				got = append(got, ev.Lost)
				return nil
			})
		}()
		synctest.Wait()
		if !e.wanted() {
			t.Error("not wanted")
		}
		for range eventBacklog + 11 { // one is in the hands of the follower
			e.publish(event("new", "10.0.0.1"))
			e.publish(event("closed", "10.0.0.1"))
			synctest.Wait()
		}
		close(gate)
		synctest.Wait()
		e.publish(event("new", "10.0.0.1"))
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if len(got) != eventBacklog+2 || got[len(got)-1] != 10 {
			t.Errorf("%d events, the last after %d lost", len(got), got[len(got)-1])
		}
		if e.wanted() {
			t.Error("still wanted")
		}
	})
}

func TestEventFilter(t *testing.T) {
	for _, tt := range []struct {
		name    string
		request *api.MonitorRequest
		passes  bool
	}{
		{"all", &api.MonitorRequest{}, true},
		{"type", &api.MonitorRequest{Types: []string{"closed", "new"}}, true},
		{"other-type", &api.MonitorRequest{Types: []string{"refused"}}, false},
		{"source", &api.MonitorRequest{Address: "10.0.0.1"}, true},
		{"destination", &api.MonitorRequest{Address: "10.0.0.9"}, true},
		{"other-address", &api.MonitorRequest{Address: "10.0.0.8"}, false},
		{"endpoint", &api.MonitorRequest{Endpoint: 4}, true},
		{"other-endpoint", &api.MonitorRequest{Endpoint: 5}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := newEventFilter(tt.request)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.passes(event("new", "10.0.0.1")); got != tt.passes {
				t.Errorf("got %v", got)
			}
		})
	}
	if _, err := newEventFilter(&api.MonitorRequest{Address: "web"}); err == nil {
		t.Error("took a name for an address")
	}
}

func TestNames_End(t *testing.T) {
	tables := newTables()
	addr := netip.MustParseAddr("10.2.0.7")
	prefix := netip.PrefixFrom(addr, 32)
	tables.ips.Put("cluster/b", 0, schema.IPKey{Cluster: "b", Prefix: prefix}, schema.IP{ID: 131073, Workload: schema.Workload{Namespace: "default", Name: "web"}.Pack()})
	tables.identities.Put("cluster/b", 0, schema.IdentityKey{Cluster: "b", ID: 131073}, "k8s:app=web;k8s:x=;")
	n := &names{tables: tables, cfg: Config{Node: "a1"}, cache: func(p netip.Prefix) (datapath.IPCacheEntry, bool) {
		switch p {
		case prefix:
			return datapath.IPCacheEntry{Identity: 131073, Cluster: "b", Kind: datapath.KindIP}, true
		case netip.MustParsePrefix("10.0.0.1/32"):
			return datapath.IPCacheEntry{Identity: 1, Cluster: "a", Kind: datapath.KindSelf}, true
		}
		return datapath.IPCacheEntry{}, false
	}}
	for _, tt := range []struct{ at, want string }{
		{"10.2.0.7:80", "10.2.0.7 80 131073 default/web b [k8s:app=web k8s:x=]"},
		{"10.0.0.1:80", "10.0.0.1 80 1 node/a1 a []"},
		{"1.1.1.1:53", "1.1.1.1 53 0   []"},
	} {
		e := n.end(netip.MustParseAddrPort(tt.at), 0)
		if d := cmp.Diff(tt.want, endText(e)); d != "" {
			t.Error(d)
		}
	}
}

func endText(e *api.FlowEnd) string {
	return fmt.Sprint(e.Address, " ", e.Port, " ", e.Identity, " ", e.Name, " ", e.Cluster, " ", e.Labels)
}
