// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
	"github.com/weft-net/weft/state"
)

func newServices() *services {
	return &services{
		cfg: service.Config{Cluster: "a", ClusterID: 1}, hold: time.Minute,
		had: func() func(service.Frontend) bool {
			left := service.Frontend{Addr: netip.MustParseAddrPort("10.96.0.2:80"), Protocol: schema.TCP}
			return func(f service.Frontend) bool { return f == left }
		},
		definitions: state.NewTable[schema.DefinitionKey]("definitions", schema.Definition.Equal),
		endpoints:   state.NewTable[schema.EndpointKey]("endpoints", schema.Endpoint.Equal),
		remote:      state.NewTable[schema.ServiceKey]("remote-services", schema.ClusterService.Equal),
		restored:    newRestored(),
		frontends:   newFrontendTable(),
		infos:       newServiceTable(),
	}
}

func (s *services) fill(t *testing.T) {
	t.Helper()
	definition := func(vip string, annotations map[string]string) schema.Definition {
		return schema.Definition{
			Ports: []schema.ServicePort{{Protocol: schema.TCP, Port: 80}}, Selector: map[string]string{"app": "web"},
			VIPs: []netip.Addr{netip.MustParseAddr(vip)}, Annotations: annotations,
		}
	}
	s.definitions.Put("etcd", 0, schema.DefinitionKey{Namespace: "d", Name: "own"}, definition("10.96.0.1", nil))
	s.definitions.Put("etcd", 0, schema.DefinitionKey{Namespace: "d", Name: "web"},
		definition("10.96.0.2", map[string]string{service.AnnotationGlobal: "true"}))
	s.endpoints.Put("etcd", 0, schema.EndpointKey{Cluster: "a", Node: "a1", ID: 1}, schema.Endpoint{
		Namespace: "d", Name: "web", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2")}, Labels: map[string]string{"k8s:app": "web"},
	})
	s.remote.Expect("cluster/b")
}

// start runs it until the test ends.
func (s *services) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// expect waits until nothing moves and compares the frontends.
func (s *services) expect(t *testing.T, what string, want ...string) {
	t.Helper()
	synctest.Wait()
	if d := cmp.Diff(want, s.show()); d != "" {
		t.Errorf("%s: %s", what, d)
	}
}

func (s *services) show() []string {
	var got []string
	for r := range s.frontends.All() {
		got = append(got, fmt.Sprintf("%v %d", r.Key, r.Value.Chosen))
	}
	slices.Sort(got)
	return got
}

func TestServices_HoldWhatIsNotComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServices()
		s.fill(t)
		s.start(t)
		s.expect(t, "nothing synced")
		s.definitions.MarkSynced("etcd")
		s.expect(t, "definitions synced")
		s.endpoints.MarkSynced("etcd")
		s.expect(t, "ours synced", "10.96.0.1:80/TCP 1")
		if s.frontends.Synced() {
			t.Error("frontends are synced without the other cluster")
		}
		s.remote.Put("cluster/b", 0, schema.ServiceKey{Cluster: "b", Namespace: "d", Name: "web"}, schema.ClusterService{
			Cluster: "b", ClusterID: 2, Namespace: "d", Name: "web", Shared: true, IncludeExternal: true,
			Backends: map[netip.Addr]map[string]schema.L4{netip.MustParseAddr("10.9.0.2"): {"": {Protocol: schema.TCP, Port: 80}}},
		})
		s.expect(t, "other cluster half there", "10.96.0.1:80/TCP 1")
		s.remote.MarkSynced("cluster/b")
		s.expect(t, "all synced", "10.96.0.1:80/TCP 1", "10.96.0.2:80/TCP 2")
		if !s.frontends.Synced() {
			t.Error("frontends are not synced")
		}
	})
}

func TestServices_HoldEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServices()
		s.fill(t)
		s.definitions.MarkSynced("etcd")
		s.endpoints.MarkSynced("etcd")
		s.start(t)
		time.Sleep(59 * time.Second)
		s.expect(t, "just before the time is over", "10.96.0.1:80/TCP 1")
		time.Sleep(2 * time.Second)
		s.expect(t, "the time is over", "10.96.0.1:80/TCP 1", "10.96.0.2:80/TCP 1")
	})
}

func TestServices_RestoredIsNoHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServices()
		s.fill(t)
		s.start(t)
		s.restored.Put(derived, 0, "etcd", true)
		s.expect(t, "ours restored", "10.96.0.1:80/TCP 1")
		s.restored.Put(derived, 0, "cluster/b", true)
		s.expect(t, "all restored", "10.96.0.1:80/TCP 1", "10.96.0.2:80/TCP 1")
		if s.frontends.Synced() {
			t.Error("what was restored is called synced: it would be pruned by")
		}
	})
}

func TestServices_NothingToHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServices()
		s.had = func() func(service.Frontend) bool { return func(service.Frontend) bool { return false } }
		s.fill(t)
		s.definitions.MarkSynced("etcd")
		s.endpoints.MarkSynced("etcd")
		s.start(t)
		s.expect(t, "nothing to hold", "10.96.0.1:80/TCP 1", "10.96.0.2:80/TCP 1")
	})
}
