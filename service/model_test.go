// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weft-net/weft/kvstore/schema"
)

// naive is the reference: every frontend from scratch, by the sentences of the format description.
func naive(cfg Config, in Input) map[Frontend]Service {
	out := make(map[Frontend]Service)
	names := slices.SortedFunc(maps.Keys(in.Definitions), compareNames)
	for _, name := range names {
		d := in.Definitions[name]
		o, _ := ParseOptions(d.Annotations)
		for _, vip := range d.VIPs {
			for _, p := range d.Ports {
				f := Frontend{netip.AddrPortFrom(vip, p.Port), protocolOf(p.Protocol)}
				if _, taken := out[f]; taken {
					continue // an earlier port, or a service that comes first by name
				}
				local := map[netip.AddrPort]Backend{}
				add := func(a netip.Addr, number uint16, s schema.EndpointState) {
					if a.Is4() != vip.Is4() || number == 0 || s == schema.EndpointNotReady {
						return
					}
					b := Backend{netip.AddrPortFrom(a, number), cfg.Cluster, Active}
					if s == schema.EndpointTerminating {
						b.State = Terminating
					}
					if have, ok := local[b.Addr]; ok && have.State == Active {
						return
					}
					local[b.Addr] = b
				}
				target := func(named []schema.NamedPort) uint16 {
					if p.TargetName == "" {
						return cmp.Or(p.TargetPort, p.Port)
					}
					for _, n := range named {
						if n.Name == p.TargetName && protocolOf(n.Protocol) == protocolOf(p.Protocol) {
							return n.Port
						}
					}
					return 0
				}
				for _, b := range d.Backends {
					number, ok := b.Ports[p.Name]
					if !ok {
						number = target(nil)
					}
					add(b.Addr, number, b.State)
				}
				for _, e := range in.Endpoints {
					if namespaceOf(e.Namespace) != namespaceOf(name.Namespace) || !naiveSelects(d.Selector, e.Labels) {
						continue
					}
					for _, a := range e.Addresses {
						add(a, target(e.NamedPorts), e.State)
					}
				}
				remote := map[netip.AddrPort]Backend{}
				if o.Global {
					keys := slices.SortedFunc(maps.Keys(in.Remotes), func(a, b schema.ServiceKey) int {
						return cmp.Or(cmp.Compare(in.Remotes[a].ClusterID, in.Remotes[b].ClusterID), cmp.Compare(a.Cluster, b.Cluster))
					})
					for _, k := range keys {
						s := in.Remotes[k]
						if k.Namespace != name.Namespace || k.Name != name.Name || !s.Shared {
							continue
						}
						for a, ports := range s.Backends {
							l4, ok := ports[p.Name]
							if a.Is4() != vip.Is4() || !ok || l4.Protocol != protocolOf(p.Protocol) {
								continue
							}
							b := Backend{netip.AddrPortFrom(a, l4.Port), k.Cluster, Active}
							if _, taken := remote[b.Addr]; !taken && local[b.Addr].Cluster == "" {
								remote[b.Addr] = b
							}
						}
					}
				}
				out[f] = naiveChoice(Service{Name: name, Port: p.Name, Global: o.Global, Affinity: o.Affinity}, local, remote)
			}
		}
	}
	return out
}

func naiveChoice(s Service, local, remote map[netip.AddrPort]Backend) Service {
	count := func(m map[netip.AddrPort]Backend) (n int) {
		for _, b := range m {
			if b.State == Active {
				n++
			}
		}
		return n
	}
	preferred := map[netip.AddrPort]Backend{}
	switch s.Affinity {
	case AffinityNone:
		maps.Copy(preferred, local)
		maps.Copy(preferred, remote)
	case AffinityLocal:
		maps.Copy(preferred, local)
		if count(local) == 0 {
			maps.Copy(preferred, remote)
		}
	case AffinityRemote:
		maps.Copy(preferred, remote)
		if len(remote) == 0 {
			maps.Copy(preferred, local)
		}
	}
	var chosen, rest []Backend
	all := maps.Clone(local)
	maps.Copy(all, remote)
	for a, b := range all {
		if _, ok := preferred[a]; ok && (b.State == Active || count(preferred) == 0) {
			chosen = append(chosen, b)
		} else {
			rest = append(rest, b)
		}
	}
	slices.SortFunc(chosen, compareBackends)
	slices.SortFunc(rest, compareBackends)
	s.Backends, s.Chosen = append(chosen, rest...), len(chosen)
	return s
}

func naiveSelects(selector, labels map[string]string) bool {
	for key, value := range selector {
		source, bare, ok := strings.Cut(key, ":")
		if !ok {
			source, bare = "any", key
		}
		found := false
		for k, v := range labels {
			s, b, ok := strings.Cut(k, ":")
			if !ok {
				s, b = "k8s", k
			}
			found = found || b == bare && v == value && (source == "any" || source == s)
		}
		if !found {
			return false
		}
	}
	return len(selector) > 0
}

// world makes random rows over a universe so small that everything collides.
type world struct{ r *rand.Rand }

func (w world) one(of ...string) string { return of[w.r.IntN(len(of))] }

func (w world) name() schema.DefinitionKey {
	return schema.DefinitionKey{Namespace: w.one("default", "prod"), Name: w.one("db", "web", "x")}
}

func (w world) addr(net int) netip.Addr {
	if w.r.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{10, byte(net), 0, byte(1 + w.r.IntN(4))})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00:%d::%d", net, 1+w.r.IntN(4)))
}

func (w world) labels(sources ...string) map[string]string {
	m := map[string]string{}
	for range w.r.IntN(4) {
		m[w.one(sources...)+w.one("app", "tier", "env")] = w.one("a", "b")
	}
	return m
}

func (w world) state() schema.EndpointState { return schema.EndpointState(w.r.IntN(3)) }

func (w world) definition() schema.Definition {
	d := schema.Definition{Selector: w.labels("", "k8s:", "any:", "cni:")}
	for i := range 1 + w.r.IntN(3) {
		p := schema.ServicePort{Name: fmt.Sprint("p", i), Port: uint16(80 + w.r.IntN(2)), Protocol: []schema.Protocol{0, schema.TCP, schema.UDP}[w.r.IntN(3)]}
		switch w.r.IntN(3) {
		case 0:
			p.TargetName = w.one("http", "dns")
		case 1:
			p.TargetPort = 8080
		}
		d.Ports = append(d.Ports, p)
	}
	for range w.r.IntN(3) {
		d.VIPs = append(d.VIPs, w.addr(96))
	}
	for range w.r.IntN(2) {
		b := schema.Backend{Addr: w.addr(1), State: w.state()}
		if w.r.IntN(2) == 0 {
			b.Ports = map[string]uint16{"p0": 9000}
		}
		d.Backends = append(d.Backends, b)
	}
	d.Annotations = map[string]string{
		AnnotationGlobal:                   w.one("true", "True", "false", "maybe"),
		AnnotationShared:                   w.one("true", "false"),
		w.one(AnnotationAffinity, "other"): w.one("none", "local", "Remote", "sideways"),
	}
	return d
}

func (w world) endpoint() schema.Endpoint {
	e := schema.Endpoint{Namespace: w.one("", "default", "prod"), Labels: w.labels("", "k8s:", "cni:"), State: w.state()}
	for range 1 + w.r.IntN(2) {
		e.Addresses = append(e.Addresses, w.addr(1))
	}
	for range w.r.IntN(3) {
		e.NamedPorts = append(e.NamedPorts, schema.NamedPort{Name: w.one("http", "dns"), Port: uint16(8000 + w.r.IntN(2)), Protocol: []schema.Protocol{schema.TCP, schema.UDP}[w.r.IntN(2)]})
	}
	return e
}

func (w world) remote(key schema.ServiceKey) schema.ClusterService {
	s := schema.ClusterService{Cluster: key.Cluster, Namespace: key.Namespace, Name: key.Name, ClusterID: uint32(key.Cluster[0] - 'a' + 1), Shared: w.r.IntN(4) > 0, Backends: map[netip.Addr]map[string]schema.L4{}}
	for range w.r.IntN(4) {
		ports := map[string]schema.L4{}
		for range 1 + w.r.IntN(2) {
			ports[w.one("p0", "p1", "p2")] = schema.L4{Protocol: []schema.Protocol{schema.TCP, schema.UDP, 0}[w.r.IntN(3)], Port: uint16(8000 + w.r.IntN(2))}
		}
		s.Backends[w.addr(1+w.r.IntN(2))] = ports
	}
	return s
}

// TestIndex_AgainstModel feeds random single changes and compares, after each flush, what the
// changes added up to with a whole recomputation; and that nothing was told that did not change.
func TestIndex_AgainstModel(t *testing.T) {
	rounds, steps := 60, 250
	if testing.Short() {
		rounds = 10
	}
	for seed := range rounds {
		w := world{rand.New(rand.NewPCG(uint64(seed), 1))}
		cfg := Config{Cluster: "b", ClusterID: 2}
		x := NewIndex(cfg)
		in := Input{map[schema.DefinitionKey]schema.Definition{}, map[schema.EndpointKey]schema.Endpoint{}, map[schema.ServiceKey]schema.ClusterService{}}
		told := map[Frontend]Service{}
		for step := range steps {
			switch w.r.IntN(10) {
			case 0, 1:
				k, d := w.name(), w.definition()
				in.Definitions[k] = d
				x.SetDefinition(k, d)
			case 2:
				k := w.name()
				delete(in.Definitions, k)
				x.DeleteDefinition(k)
			case 3, 4, 5:
				k := schema.EndpointKey{Cluster: "b", Node: w.one("n1", "n2"), ID: uint32(w.r.IntN(4))}
				e := w.endpoint()
				if old, ok := in.Endpoints[k]; ok && w.r.IntN(2) == 0 {
					e, e.State = old, w.state() // the usual change
				}
				in.Endpoints[k] = e
				x.SetEndpoint(k, e)
			case 6:
				k := schema.EndpointKey{Cluster: "b", Node: w.one("n1", "n2"), ID: uint32(w.r.IntN(4))}
				delete(in.Endpoints, k)
				x.DeleteEndpoint(k)
			case 7, 8:
				n := w.name()
				k := schema.ServiceKey{Cluster: w.one("a", "c", "d"), Namespace: n.Namespace, Name: n.Name}
				s := w.remote(k)
				in.Remotes[k] = s
				x.SetRemote(k, s)
			case 9:
				n := w.name()
				k := schema.ServiceKey{Cluster: w.one("a", "c", "d"), Namespace: n.Namespace, Name: n.Name}
				delete(in.Remotes, k)
				x.DeleteRemote(k)
			}
			if w.r.IntN(3) == 0 {
				continue // let changes pile up
			}
			changes := x.Flush()
			if !slices.IsSortedFunc(changes.Frontends, func(a, b Change) int { return a.Frontend.Compare(b.Frontend) }) {
				t.Fatalf("seed %d step %d: changes are not sorted", seed, step)
			}
			for _, c := range changes.Frontends {
				old, known := told[c.Frontend]
				if c.Deleted {
					if !known {
						t.Fatalf("seed %d step %d: %s deleted and was not known", seed, step, c.Frontend)
					}
					delete(told, c.Frontend)
					continue
				}
				if known && old.Equal(c.Service) {
					t.Fatalf("seed %d step %d: %s told without a change", seed, step, c.Frontend)
				}
				told[c.Frontend] = c.Service
			}
			if diff := gocmp.Diff(naive(cfg, in), told, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
				t.Fatalf("seed %d step %d: -naive +index\n%s", seed, step, diff)
			}
		}
		rows := map[Frontend]Service{}
		for _, r := range Select(cfg, in) {
			rows[r.Frontend] = r.Service
		}
		if diff := gocmp.Diff(naive(cfg, in), rows, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
			t.Fatalf("seed %d: -naive +Select\n%s", seed, diff)
		}
		for k := range in.Definitions {
			x.DeleteDefinition(k)
		}
		for k := range in.Endpoints {
			x.DeleteEndpoint(k)
		}
		for k := range in.Remotes {
			x.DeleteRemote(k)
		}
		x.Flush()
		if n := len(x.labels.byPair) + len(x.frontends) + len(x.remotes) + len(x.definitions) + len(x.endpoints); n != 0 {
			t.Fatalf("seed %d: an empty index holds %d things", seed, n)
		}
	}
}
