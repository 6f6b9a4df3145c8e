// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"net/netip"
)

// wireIP is the JSON form of an ip row.
type wireIP struct {
	IP                string
	Mask              []byte // null for a single address
	HostIP            string
	ID                uint32
	Key               uint8
	Metadata          string
	K8sNamespace      string     `json:",omitempty"`
	K8sPodName        string     `json:",omitempty"`
	K8sServiceAccount string     `json:",omitempty"`
	NamedPorts        []wirePort `json:",omitempty"`
}

type wirePort struct {
	Name     string
	Port     uint16
	Protocol string
}

// IPs returns the codec of the addresses and prefixes of a cluster. A row may name a reserved
// identity or one of the cluster's range. What a remote's host (1) is to us, a remote node (6), is
// for the reader to translate.
func IPs(s Scope) Codec[IPKey, IP] {
	prefix := IPsPrefix
	if s.Cached {
		prefix = CachedIPsPrefix + s.Cluster + "/"
	}
	return Codec[IPKey, IP]{
		Prefix:    prefix,
		FormatKey: IPKey.String,
		ParseKey: func(tail string) (IPKey, error) {
			p, err := parseIP(tail)
			return IPKey{Cluster: s.Cluster, Prefix: p}, err
		},
		Encode: func(k IPKey, v IP) ([]byte, error) { return encodeIP(s, k, v) },
		Decode: func(k IPKey, b []byte) (IP, error) {
			if v, ok := scanIP(k, b); ok && checkIP(s, k, v) == nil {
				return v, nil
			}
			return decodeIP(s, k, b)
		},
		Equal: func(a, b IP) bool { return a == b },
	}
}

// decodeIP is the reference, and says why a row is refused; scanIP is its fast path.
func decodeIP(s Scope, k IPKey, b []byte) (IP, error) {
	var w wireIP
	if err := decodeJSON(k.String(), b, &w); err != nil {
		return IP{}, err
	}
	key := k.String()
	a, err := parseAddr(key, "IP", w.IP)
	if err != nil {
		return IP{}, err
	}
	if !a.IsValid() {
		return IP{}, invalid(key, "row has no IP")
	}
	bits := a.BitLen()
	if w.Mask != nil {
		var ok bool
		if bits, ok = maskLen(a, w.Mask); !ok {
			return IP{}, invalid(key, "mask %x is none for %s", clip(string(w.Mask), 16), a)
		}
	}
	if p := netip.PrefixFrom(a, bits); p != k.Prefix {
		return IP{}, invalid(key, "row says %s", p)
	}
	v := IP{ID: w.ID, Key: w.Key}
	if v.HostIP, err = parseAddr(key, "HostIP", w.HostIP); err != nil {
		return IP{}, err
	}
	if err := checkIP(s, k, v); err != nil {
		return IP{}, err
	}
	load := Workload{
		Metadata: w.Metadata, Namespace: w.K8sNamespace, Name: w.K8sPodName,
		ServiceAccount: w.K8sServiceAccount,
	}
	for _, p := range w.NamedPorts {
		load.NamedPorts = append(load.NamedPorts, NamedPort{Name: p.Name, Port: p.Port, Protocol: foreignProtocol(p.Protocol)})
	}
	if err := checkWorkload(key, load); err != nil {
		return IP{}, err
	}
	v.Workload = load.Pack()
	return v, nil
}

func encodeIP(s Scope, k IPKey, v IP) ([]byte, error) {
	if err := checkIP(s, k, v); err != nil {
		return nil, err
	}
	load := v.Workload.Unpack()
	w := wireIP{
		IP: k.Prefix.Addr().String(), HostIP: formatAddr(v.HostIP), ID: v.ID, Key: v.Key,
		Metadata: load.Metadata, K8sNamespace: load.Namespace, K8sPodName: load.Name,
		K8sServiceAccount: load.ServiceAccount,
	}
	for _, p := range load.NamedPorts {
		w.NamedPorts = append(w.NamedPorts, wirePort{Name: p.Name, Port: p.Port, Protocol: p.Protocol.String()})
	}
	if !k.Prefix.IsSingleIP() {
		w.Mask = maskOf(k.Prefix)
	}
	return encodeJSON(k.String(), w)
}

// checkIP holds what reader and writer demand alike.
func checkIP(s Scope, k IPKey, v IP) error {
	p := k.Prefix
	switch {
	case !p.IsValid() || p != p.Masked() || p.Addr().Is4In6():
		return invalid(k.String(), "not a prefix without host bits")
	case p.IsSingleIP() && (p.Addr().IsUnspecified() || p.Addr().IsMulticast() || p.Addr().IsLoopback()):
		return invalid(k.String(), "not the address of an endpoint")
	case v.ID == 0:
		return invalid(k.String(), "row has no identity")
	case v.ID >= MinAllocatedIdentity && !s.identityInRange(v.ID):
		return invalid(k.String(), "identity %d is not in the range of cluster %d", v.ID, s.ClusterID)
	}
	return nil
}

// checkWorkload refuses text that PackedWorkload cannot hold.
func checkWorkload(key string, w Workload) error {
	for _, f := range [...]struct{ what, text string }{
		{"metadata", w.Metadata},
		{"namespace", w.Namespace},
		{"name", w.Name},
		{"service account", w.ServiceAccount},
	} {
		if err := checkText(key, f.what, f.text); err != nil {
			return err
		}
	}
	for _, p := range w.NamedPorts {
		if err := checkText(key, "port name", p.Name); err != nil {
			return err
		}
	}
	return nil
}
