// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"

	"github.com/weft-net/weft/kvstore/schema"
)

// The size that the costs are shown at.
const (
	benchServices  = 27_000
	benchEndpoints = 36_000
)

// large makes n services and m endpoints: every endpoint carries ten labels, some of them shared by
// all, and belongs to one service; every tenth service is global and has a remote half.
func large(n, m int) Input {
	in := Input{
		make(map[schema.DefinitionKey]schema.Definition, n),
		make(map[schema.EndpointKey]schema.Endpoint, m),
		make(map[schema.ServiceKey]schema.ClusterService, n/10),
	}
	for i := range n {
		key := schema.DefinitionKey{Namespace: fmt.Sprint("ns", i%100), Name: fmt.Sprint("svc", i)}
		d := schema.Definition{
			Ports:    []schema.ServicePort{{Name: "http", Protocol: schema.TCP, Port: 80, TargetName: "http"}, {Name: "metrics", Protocol: schema.TCP, Port: 9090}},
			Selector: map[string]string{"app": fmt.Sprint("app", i), "env": "prod"},
			VIPs:     []netip.Addr{netip.AddrFrom4([4]byte{10, 96 + byte(i>>16), byte(i >> 8), byte(i)})},
		}
		if i%10 == 0 {
			d.Annotations = map[string]string{AnnotationGlobal: "true", AnnotationAffinity: "local"}
			in.Remotes[schema.ServiceKey{Cluster: "b", Namespace: key.Namespace, Name: key.Name}] = schema.ClusterService{
				ClusterID: 2, Shared: true,
				Backends: map[netip.Addr]map[string]schema.L4{
					netip.AddrFrom4([4]byte{10, 128 + byte(i>>16), byte(i >> 8), byte(i)}): {"http": {Protocol: schema.TCP, Port: 8080}, "metrics": {Protocol: schema.TCP, Port: 9090}},
				},
			}
		}
		in.Definitions[key] = d
	}
	for i := range m {
		svc := i % n
		labels := map[string]string{"k8s:app": fmt.Sprint("app", svc), "k8s:env": "prod", "k8s:pod": fmt.Sprint("pod", i)}
		for j := range 7 {
			labels[fmt.Sprint("k8s:common", j)] = "yes"
		}
		in.Endpoints[schema.EndpointKey{Cluster: "a", Node: fmt.Sprint("n", i%400), ID: uint32(i)}] = schema.Endpoint{
			Namespace: fmt.Sprint("ns", svc%100), Labels: labels,
			Addresses:  []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})},
			NamedPorts: []schema.NamedPort{{Name: "http", Port: 8080, Protocol: schema.TCP}},
		}
	}
	return in
}

func load(in Input) *Index {
	x := NewIndex(Config{Cluster: "a", ClusterID: 1})
	for k, d := range in.Definitions {
		x.SetDefinition(k, d)
	}
	for k, e := range in.Endpoints {
		x.SetEndpoint(k, e)
	}
	for k, s := range in.Remotes {
		x.SetRemote(k, s)
	}
	x.Flush()
	return x
}

// pick takes one endpoint with two rows that differ in state.
func pick(in Input) (key schema.EndpointKey, ready, terminating schema.Endpoint) {
	key = schema.EndpointKey{Cluster: "a", Node: "n7", ID: 7}
	ready = in.Endpoints[key]
	terminating = ready
	terminating.State = schema.EndpointTerminating
	return key, ready, terminating
}

// BenchmarkIndex_OneChange is the cost of one backend that changes, with different amounts loaded:
// it must not depend on them.
func BenchmarkIndex_OneChange(b *testing.B) {
	for _, n := range []int{1, benchServices} {
		b.Run(fmt.Sprint("services-", n), func(b *testing.B) {
			in := large(n, max(10, n*4/3))
			if n == 1 {
				maps.DeleteFunc(in.Endpoints, func(k schema.EndpointKey, _ schema.Endpoint) bool { return k.ID > 7 || k.ID < 6 })
			}
			x := load(in)
			key, ready, terminating := pick(in)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%2 == 0 {
					x.SetEndpoint(key, terminating)
				} else {
					x.SetEndpoint(key, ready)
				}
				x.Flush()
			}
		})
	}
}

// BenchmarkIndex_ComeAndGo is one endpoint that is deleted and added again.
func BenchmarkIndex_ComeAndGo(b *testing.B) {
	in := large(benchServices, benchEndpoints)
	x := load(in)
	key, ready, _ := pick(in)
	b.ReportAllocs()
	for b.Loop() {
		x.DeleteEndpoint(key)
		x.Flush()
		x.SetEndpoint(key, ready)
		x.Flush()
	}
}

// BenchmarkIndex_LargeService is one backend that changes in a service of many.
func BenchmarkIndex_LargeService(b *testing.B) {
	for _, n := range []int{10, 5000} {
		b.Run(fmt.Sprint("backends-", n), func(b *testing.B) {
			in := large(1, n)
			x := load(in)
			key, ready, terminating := pick(in)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%2 == 0 {
					x.SetEndpoint(key, terminating)
				} else {
					x.SetEndpoint(key, ready)
				}
				x.Flush()
			}
		})
	}
}

// BenchmarkIndex_Load is a cold start.
func BenchmarkIndex_Load(b *testing.B) {
	in := large(benchServices, benchEndpoints)
	b.ReportAllocs()
	for b.Loop() {
		load(in)
	}
}

// TestIndex_AllocationBound keeps one change from costing more than it must.
func TestIndex_AllocationBound(t *testing.T) {
	in := large(1000, 1300)
	x := load(in)
	key, ready, terminating := pick(in)
	i := 0
	got := testing.AllocsPerRun(200, func() {
		if i++; i%2 == 0 {
			x.SetEndpoint(key, ready)
		} else {
			x.SetEndpoint(key, terminating)
		}
		x.Flush()
	})
	// Two ports: a slice of backends and one of the parted for each, the changes, the names.
	if got > 12 {
		t.Errorf("%.0f allocations for one change, want at most 12", got)
	}
	// A row that says nothing new costs nothing.
	x.SetEndpoint(key, ready)
	x.Flush()
	if got := testing.AllocsPerRun(200, func() { x.SetEndpoint(key, ready) }); got > 0 {
		t.Errorf("%.0f allocations for no change", got)
	}
}
