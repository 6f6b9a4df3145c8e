// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"net/netip"
	"strings"
)

// wireService is the JSON form of a service row.
type wireService struct {
	Cluster         string                       `json:"cluster"`
	Namespace       string                       `json:"namespace"`
	Name            string                       `json:"name"`
	Frontends       map[string]map[string]wireL4 `json:"frontends"`
	Backends        map[string]map[string]wireL4 `json:"backends"`
	Hostnames       map[string]string            `json:"hostnames,omitempty"`
	Zones           map[string]wireZone          `json:"zones,omitempty"`
	Labels          map[string]string            `json:"labels"`
	Selector        map[string]string            `json:"selector"`
	IncludeExternal bool                         `json:"includeExternal"`
	Shared          bool                         `json:"shared"`
	ClusterID       uint32                       `json:"clusterID"`
}

type wireL4 struct {
	Protocol string
	Port     uint16
}

type wireZone struct {
	Zone     string        `json:"zone,omitempty"`
	ForZones []wireForZone `json:"forZones,omitempty"`
}

type wireForZone struct {
	Name string `json:"name"`
}

// Services returns the codec of the services that a cluster shows to the mesh.
func Services(s Scope) Codec[ServiceKey, ClusterService] {
	prefix := ServicesPrefix
	if s.Cached {
		prefix = CachedServicesPrefix
	}
	return Codec[ServiceKey, ClusterService]{
		Prefix:    prefix + s.Cluster + "/",
		FormatKey: func(k ServiceKey) string { return k.Namespace + "/" + k.Name },
		ParseKey: func(tail string) (ServiceKey, error) {
			ns, name, err := parseNamespaced(tail)
			return ServiceKey{Cluster: s.Cluster, Namespace: ns, Name: name}, err
		},
		Encode: func(k ServiceKey, v ClusterService) ([]byte, error) { return encodeService(s, k, v) },
		Decode: func(k ServiceKey, b []byte) (ClusterService, error) { return decodeService(s, k, b) },
		Equal:  ClusterService.Equal,
	}
}

// parseNamespaced splits namespace/name.
func parseNamespaced(tail string) (ns, name string, err error) {
	ns, name, _ = strings.Cut(tail, "/")
	if err := checkName(tail, "namespace", ns); err != nil {
		return "", "", err
	}
	if err := checkName(tail, "name", name); err != nil {
		return "", "", err
	}
	return ns, name, nil
}

func decodeService(s Scope, k ServiceKey, b []byte) (ClusterService, error) {
	key := k.Namespace + "/" + k.Name
	var w wireService
	if err := decodeJSON(key, b, &w); err != nil {
		return ClusterService{}, err
	}
	v := ClusterService{
		Cluster: w.Cluster, Namespace: w.Namespace, Name: w.Name, ClusterID: w.ClusterID,
		Labels: w.Labels, Selector: w.Selector, IncludeExternal: w.IncludeExternal, Shared: w.Shared,
	}
	if err := checkService(s, k, v); err != nil {
		return ClusterService{}, err
	}
	var err error
	if v.Frontends, err = byAddr(key, "frontend", w.Frontends, portsOf); err != nil {
		return ClusterService{}, err
	}
	if v.Backends, err = byAddr(key, "backend", w.Backends, portsOf); err != nil {
		return ClusterService{}, err
	}
	if v.Hostnames, err = byAddr(key, "hostname", w.Hostnames, func(n string) string { return n }); err != nil {
		return ClusterService{}, err
	}
	v.Zones, err = byAddr(key, "zone", w.Zones, func(z wireZone) Zone {
		out := Zone{Zone: z.Zone}
		for _, f := range z.ForZones {
			out.ForZones = append(out.ForZones, f.Name)
		}
		return out
	})
	if err != nil {
		return ClusterService{}, err
	}
	return v, nil
}

// byAddr parses the keys of a map and converts its values. An empty map becomes nil.
func byAddr[W, V any](key, what string, in map[string]W, convert func(W) V) (map[netip.Addr]V, error) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make(map[netip.Addr]V, len(in))
	for text, w := range in {
		a, err := parseAddr(key, what, text)
		if err != nil {
			return nil, err
		}
		if !a.IsValid() {
			return nil, invalid(key, "%s without an address", what)
		}
		if _, ok := out[a]; ok {
			return nil, invalid(key, "%s %s is there twice", what, a)
		}
		out[a] = convert(w)
	}
	return out, nil
}

func portsOf(in map[string]wireL4) map[string]L4 {
	out := make(map[string]L4, len(in))
	for name, p := range in {
		out[name] = L4{Protocol: foreignProtocol(p.Protocol), Port: p.Port}
	}
	return out
}

func encodeService(s Scope, k ServiceKey, v ClusterService) ([]byte, error) {
	if err := checkService(s, k, v); err != nil {
		return nil, err
	}
	w := wireService{
		Cluster: v.Cluster, Namespace: v.Namespace, Name: v.Name, ClusterID: v.ClusterID,
		Labels: notNil(v.Labels), Selector: notNil(v.Selector),
		IncludeExternal: v.IncludeExternal, Shared: v.Shared,
		Frontends: wirePorts(v.Frontends), Backends: wirePorts(v.Backends),
	}
	if len(v.Hostnames) > 0 {
		w.Hostnames = make(map[string]string, len(v.Hostnames))
		for a, n := range v.Hostnames {
			w.Hostnames[a.String()] = n
		}
	}
	if len(v.Zones) > 0 {
		w.Zones = make(map[string]wireZone, len(v.Zones))
		for a, z := range v.Zones {
			out := wireZone{Zone: z.Zone}
			for _, name := range z.ForZones {
				out.ForZones = append(out.ForZones, wireForZone{Name: name})
			}
			w.Zones[a.String()] = out
		}
	}
	return encodeJSON(k.Namespace+"/"+k.Name, w)
}

func wirePorts(in map[netip.Addr]map[string]L4) map[string]map[string]wireL4 {
	out := make(map[string]map[string]wireL4, len(in))
	for a, ports := range in {
		m := make(map[string]wireL4, len(ports))
		for name, p := range ports {
			m[name] = wireL4{Protocol: p.Protocol.String(), Port: p.Port}
		}
		out[a.String()] = m
	}
	return out
}

// notNil makes an absent map an empty one, which other writers emit as {}.
func notNil(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// checkService holds what reader and writer demand alike.
func checkService(s Scope, k ServiceKey, v ClusterService) error {
	key := k.Namespace + "/" + k.Name
	if err := checkName(key, "namespace", v.Namespace); err != nil {
		return err
	}
	if err := checkName(key, "name", v.Name); err != nil {
		return err
	}
	switch {
	case v.Namespace != k.Namespace || v.Name != k.Name:
		return invalid(key, "row says %s/%s", v.Namespace, v.Name)
	case v.Cluster != s.Cluster:
		return invalid(key, "row says cluster %q, want %q", v.Cluster, s.Cluster)
	case v.ClusterID != s.ClusterID:
		return invalid(key, "row says cluster id %d, want %d", v.ClusterID, s.ClusterID)
	}
	return nil
}
