// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weft-net/weft/kvstore/schema"
)

func addr(s string) netip.Addr         { return netip.MustParseAddr(s) }
func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
func endpointKey(id uint32) schema.EndpointKey {
	return schema.EndpointKey{Cluster: "a", Node: "n1", ID: id}
}

var (
	webKey     = schema.DefinitionKey{Namespace: "default", Name: "web"}
	equateAddr = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}), cmpopts.EquateEmpty()}
)

func web() schema.Definition {
	return schema.Definition{
		Ports:       []schema.ServicePort{{Name: "http", Protocol: schema.TCP, Port: 80, TargetName: "http"}},
		Selector:    map[string]string{"app": "web"},
		Annotations: map[string]string{AnnotationGlobal: "true", AnnotationAffinity: "local"},
		Labels:      map[string]string{"team": "shop"},
		VIPs:        []netip.Addr{addr("10.96.0.9"), addr("fd00:96::9")},
	}
}

func webEndpoint(a string, s schema.EndpointState) schema.Endpoint {
	return schema.Endpoint{
		Namespace: "default", Addresses: []netip.Addr{addr(a)}, State: s,
		Labels:     map[string]string{"k8s:app": "web", "k8s:tier": "front"},
		NamedPorts: []schema.NamedPort{{Name: "http", Port: 8080, Protocol: schema.TCP}},
	}
}

func TestIndex_Export(t *testing.T) {
	x := NewIndex(Config{Cluster: "a", ClusterID: 1})
	if _, ok := x.Export(webKey); ok {
		t.Error("exported what is not there")
	}
	x.SetDefinition(webKey, web())
	x.SetEndpoint(endpointKey(1), webEndpoint("10.0.0.1", schema.EndpointReady))
	x.SetEndpoint(endpointKey(2), webEndpoint("10.0.0.2", schema.EndpointTerminating))
	x.SetEndpoint(endpointKey(3), webEndpoint("10.0.0.3", schema.EndpointNotReady))
	x.SetEndpoint(endpointKey(4), webEndpoint("fd00::4", schema.EndpointReady))
	got, ok := x.Export(webKey)
	http := func(n uint16) map[string]schema.L4 {
		return map[string]schema.L4{"http": {Protocol: schema.TCP, Port: n}}
	}
	want := schema.ClusterService{
		Cluster: "a", Namespace: "default", Name: "web", ClusterID: 1, IncludeExternal: true, Shared: true,
		Frontends: map[netip.Addr]map[string]schema.L4{addr("10.96.0.9"): http(80), addr("fd00:96::9"): http(80)},
		Backends:  map[netip.Addr]map[string]schema.L4{addr("10.0.0.1"): http(8080), addr("10.0.0.2"): http(8080), addr("fd00::4"): http(8080)},
		Labels:    map[string]string{"team": "shop"},
		Selector:  map[string]string{"app": "web"},
	}
	if diff := cmp.Diff(want, got, equateAddr); diff != "" || !ok {
		t.Error(ok, diff)
	}
	codec := schema.Services(schema.Scope{Cluster: "a", ClusterID: 1})
	if b, err := codec.Encode(schema.ServiceKey{Cluster: "a", Namespace: "default", Name: "web"}, got); err != nil {
		t.Errorf("cannot be stored: %v (%s)", err, b)
	}
	for name, annotations := range map[string]map[string]string{
		"not-global": {}, "not-shared": {AnnotationGlobal: "true", AnnotationShared: "false"},
	} {
		d := web()
		d.Annotations = annotations
		x.SetDefinition(webKey, d)
		if _, ok := x.Export(webKey); ok {
			t.Errorf("%s: exported", name)
		}
	}
}

// TestIndex_FailoverAndReturn is the main job: local backends go, the other cluster serves; they
// return, and so does the traffic, while the other's backends keep the flows they have.
func TestIndex_FailoverAndReturn(t *testing.T) {
	x := NewIndex(Config{Cluster: "a", ClusterID: 1})
	x.SetDefinition(webKey, web())
	x.SetEndpoint(endpointKey(1), webEndpoint("10.0.0.1", schema.EndpointReady))
	x.SetRemote(schema.ServiceKey{Cluster: "b", Namespace: "default", Name: "web"}, schema.ClusterService{
		ClusterID: 2, Shared: true,
		Backends: map[netip.Addr]map[string]schema.L4{addr("10.1.0.1"): {"http": {Protocol: schema.TCP, Port: 8081}}},
	})
	near := Backend{addrPort("10.0.0.1:8080"), "a", Active}
	far := Backend{addrPort("10.1.0.1:8081"), "b", Active}
	f := Frontend{addrPort("10.96.0.9:80"), schema.TCP}
	step := func(name string, chosen int, backends ...Backend) {
		t.Helper()
		for _, c := range x.Flush().Frontends {
			if c.Frontend != f {
				continue
			}
			want := Service{webKey, "http", true, AffinityLocal, backends, chosen}
			if diff := cmp.Diff(want, c.Service, equateAddr); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
			return
		}
		t.Errorf("%s: no change", name)
	}
	step("start", 1, near, far)
	x.SetEndpoint(endpointKey(1), webEndpoint("10.0.0.1", schema.EndpointTerminating))
	step("terminating", 1, far, Backend{near.Addr, "a", Terminating})
	x.DeleteEndpoint(endpointKey(1))
	step("gone", 1, far)
	x.SetEndpoint(endpointKey(2), webEndpoint("10.0.0.1", schema.EndpointReady))
	step("back", 1, near, far)
	if c := x.Flush(); len(c.Frontends)+len(c.Services) != 0 {
		t.Errorf("nothing changed: %v", c)
	}
}

func TestIndex_Info(t *testing.T) {
	x := NewIndex(Config{Cluster: "a", ClusterID: 1})
	d := web()
	d.Annotations[AnnotationAffinity] = "lokal"
	x.SetDefinition(webKey, d)
	x.SetEndpoint(endpointKey(1), webEndpoint("10.0.0.1", schema.EndpointReady))
	x.SetEndpoint(endpointKey(2), webEndpoint("10.0.0.2", schema.EndpointTerminating))
	x.SetRemote(schema.ServiceKey{Cluster: "b", Namespace: "default", Name: "web"}, schema.ClusterService{ClusterID: 2})
	// Another service asks for the same address; the one that comes first by name has it, and each
	// is told.
	thief := schema.DefinitionKey{Namespace: "default", Name: "a-thief"}
	d2 := web()
	d2.VIPs = d2.VIPs[:1]
	x.SetDefinition(thief, d2)
	x.Flush()
	got, ok := x.Info(webKey)
	want := Info{
		Options:   Options{true, true, AffinityNone},
		Frontends: []Frontend{{addrPort("[fd00:96::9]:80"), schema.TCP}},
		Active:    1, Terminating: 1,
		Remotes: []RemoteInfo{{"b", false, 0}},
		Problems: []Problem{
			{"annotations[service.cilium.io/affinity]", `"lokal" is not known and taken as "none": write "none", "local" or "remote"`},
			{"vips", "10.96.0.9:80/TCP belongs to service default/a-thief: give this one another address"},
		},
	}
	if diff := cmp.Diff(want, got, equateAddr); diff != "" || !ok {
		t.Error(ok, diff)
	}
	x.DeleteDefinition(thief)
	changes := x.Flush()
	if len(changes.Frontends) != 1 || changes.Frontends[0].Service.Name != webKey {
		t.Errorf("the address did not return: %v", changes)
	}
	if diff := cmp.Diff([]schema.DefinitionKey{thief, webKey}, changes.Services); diff != "" {
		t.Error(diff)
	}
}

// TestIndex_BadRows covers rows that no file could make, but another writer.
func TestIndex_BadRows(t *testing.T) {
	x := NewIndex(Config{Cluster: "a", ClusterID: 1})
	d := web()
	d.Selector = nil
	d.Ports = append(d.Ports, schema.ServicePort{Name: "odd", Protocol: 99, Port: 1}, schema.ServicePort{Name: "again", Protocol: schema.TCP, Port: 80})
	d.Backends = []schema.Backend{{Addr: addr("10.0.0.9")}, {Addr: addr("10.0.0.8"), Ports: map[string]uint16{"http": 1}, State: schema.EndpointNotReady}}
	x.SetDefinition(webKey, d)
	changes := x.Flush().Frontends
	if len(changes) != 2 || len(changes[0].Service.Backends) != 0 {
		t.Errorf("%v", changes)
	}
	in, _ := x.Info(webKey)
	var fields []string
	for _, p := range in.Problems {
		fields = append(fields, p.Field)
	}
	if diff := cmp.Diff([]string{"ports[1].protocol", "ports[2].port", "backends[10.0.0.9].ports"}, fields); diff != "" {
		t.Error(diff)
	}
	x.SetRemote(schema.ServiceKey{Cluster: "a", Namespace: "default", Name: "web"}, schema.ClusterService{Shared: true})
	if in, _ := x.Info(webKey); len(in.Remotes) != 0 {
		t.Error("a row of our own cluster was taken for a remote's")
	}
	x.DeleteRemote(schema.ServiceKey{Cluster: "z", Namespace: "default", Name: "web"})
	x.DeleteEndpoint(endpointKey(77))
	x.DeleteDefinition(schema.DefinitionKey{Name: "none"})
}

// TestIndex_InfoCounts says that a backend with two ports and two families is one.
func TestIndex_InfoCounts(t *testing.T) {
	x := NewIndex(Config{Cluster: "a", ClusterID: 1})
	d := web()
	d.Ports = []schema.ServicePort{
		{Name: "http", Protocol: schema.TCP, Port: 80, TargetPort: 8080},
		{Name: "tls", Protocol: schema.TCP, Port: 443, TargetPort: 8443},
	}
	x.SetDefinition(webKey, d)
	both := webEndpoint("10.0.0.1", schema.EndpointReady)
	both.Addresses = append(both.Addresses, netip.MustParseAddr("fd00::1"))
	x.SetEndpoint(endpointKey(1), both)
	x.SetEndpoint(endpointKey(2), webEndpoint("10.0.0.2", schema.EndpointTerminating))
	x.Flush()
	if got, _ := x.Info(webKey); got.Active != 1 || got.Terminating != 1 {
		t.Errorf("%d active, %d terminating, want 1 and 1", got.Active, got.Terminating)
	}
	x.SetDefinition(webKey, schema.Definition{
		Ports:    d.Ports,
		Backends: []schema.Backend{{Addr: netip.MustParseAddr("10.0.0.7")}, {Addr: netip.MustParseAddr("10.0.0.8")}},
	})
	x.Flush()
	if got, _ := x.Info(webKey); got.Active != 2 || got.Terminating != 0 {
		t.Errorf("%d active, %d terminating, want 2 and 0", got.Active, got.Terminating)
	}
}
