// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"net/netip"
	"slices"
	"strings"
)

// wireEndpoint is the JSON form of an endpoint row. A new member must mean nothing when it is absent,
// and its name must not be used again when it is gone.
type wireEndpoint struct {
	Namespace      string            `json:"namespace,omitempty"`
	Name           string            `json:"name,omitempty"`
	Addresses      []string          `json:"addresses"`
	Labels         map[string]string `json:"labels"`
	NamedPorts     []wireNamedPort   `json:"namedPorts,omitempty"`
	State          string            `json:"state"`
	Identity       uint32            `json:"identity,omitempty"`
	ServiceAccount string            `json:"serviceAccount,omitempty"`
}

type wireNamedPort struct {
	Name     string   `json:"name"`
	Port     uint16   `json:"port"`
	Protocol Protocol `json:"protocol"`
}

// Endpoints returns the codec of a cluster's endpoints.
func Endpoints(s Scope) Codec[EndpointKey, Endpoint] {
	return Codec[EndpointKey, Endpoint]{
		Prefix:    EndpointsPrefix,
		FormatKey: EndpointKey.String,
		ParseKey: func(tail string) (EndpointKey, error) {
			node, number, _ := strings.Cut(tail, "/")
			if err := checkName(tail, "node name", node); err != nil {
				return EndpointKey{}, err
			}
			id, err := parseNumber(tail, number)
			if err != nil {
				return EndpointKey{}, err
			}
			return EndpointKey{Cluster: s.Cluster, Node: node, ID: id}, nil
		},
		Encode: func(k EndpointKey, e Endpoint) ([]byte, error) { return encodeEndpoint(s, k, e) },
		Decode: func(k EndpointKey, b []byte) (Endpoint, error) { return decodeEndpoint(s, k, b) },
		Equal:  Endpoint.Equal,
	}
}

func decodeEndpoint(s Scope, k EndpointKey, b []byte) (Endpoint, error) {
	key := k.String()
	var w wireEndpoint
	extra, err := decodeOwn(key, b, &w)
	if err != nil {
		return Endpoint{}, err
	}
	e := Endpoint{
		Namespace: w.Namespace, Name: w.Name, Labels: w.Labels, Identity: w.Identity,
		ServiceAccount: w.ServiceAccount, Extra: extra,
	}
	if e.State, err = ParseEndpointState(w.State); err != nil {
		return Endpoint{}, invalid(key, "%v", err)
	}
	if e.Addresses, err = parseAddrs(key, w.Addresses); err != nil {
		return Endpoint{}, err
	}
	for _, p := range w.NamedPorts {
		port := NamedPort(p)
		if port.Protocol == AnyProtocol {
			port.Protocol = TCP // not said
		}
		e.NamedPorts = append(e.NamedPorts, port)
	}
	slices.SortFunc(e.NamedPorts, comparePorts)
	return e, checkEndpoint(s, key, e)
}

func encodeEndpoint(s Scope, k EndpointKey, e Endpoint) ([]byte, error) {
	key := k.String()
	if err := checkEndpoint(s, key, e); err != nil {
		return nil, err
	}
	w := wireEndpoint{
		Namespace: e.Namespace, Name: e.Name, Addresses: formatAddrs(e.Addresses), Labels: notNil(e.Labels),
		State: e.State.String(), Identity: e.Identity, ServiceAccount: e.ServiceAccount,
	}
	for _, p := range slices.SortedFunc(slices.Values(e.NamedPorts), comparePorts) {
		w.NamedPorts = append(w.NamedPorts, wireNamedPort(p))
	}
	return encodeOwn(key, w, e.Extra)
}

func checkEndpoint(s Scope, key string, e Endpoint) error {
	if err := checkAddrs(key, e.Addresses); err != nil {
		return err
	}
	if len(e.Addresses) == 0 {
		return invalid(key, "row has no address")
	}
	if err := checkWorkload(key, Workload{
		Namespace: e.Namespace, Name: e.Name, ServiceAccount: e.ServiceAccount, NamedPorts: e.NamedPorts,
	}); err != nil {
		return err
	}
	for _, p := range e.NamedPorts {
		if p.Port == 0 || p.Name == "" || p.Protocol == AnyProtocol {
			return invalid(key, "named port %q is %d/%s", p.Name, p.Port, p.Protocol)
		}
	}
	if e.State > EndpointTerminating {
		return invalid(key, "state %d is not known", e.State)
	}
	if e.Identity >= MinAllocatedIdentity && !s.identityInRange(e.Identity) {
		return invalid(key, "identity %d is not in the range of cluster %d", e.Identity, s.ClusterID)
	}
	return nil
}

// parseAddrs reads a list of addresses and puts IPv4 first.
func parseAddrs(key string, texts []string) ([]netip.Addr, error) {
	var as []netip.Addr
	for _, t := range texts {
		a, err := parseAddr(key, "address", t)
		if err != nil {
			return nil, err
		}
		as = append(as, a)
	}
	slices.SortStableFunc(as, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	return as, nil
}

func formatAddrs(as []netip.Addr) []string {
	texts := make([]string, len(as))
	for i, a := range as {
		texts[i] = a.String()
	}
	return texts
}

// checkAddrs refuses more than one address of a family, and those that no packet may carry.
func checkAddrs(key string, as []netip.Addr) error {
	for i, a := range as {
		switch {
		case !a.IsValid() || a.Is4In6() || a.Zone() != "":
			return invalid(key, "address %q is not one", a)
		case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback():
			return invalid(key, "address %s cannot be that of an endpoint or service", a)
		case i > 0 && as[i-1].BitLen() >= a.BitLen():
			return invalid(key, "addresses %s and %s: want at most one of each family, IPv4 first", as[i-1], a)
		}
	}
	return nil
}
