// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"net/netip"
	"slices"
)

// wireNode is the JSON form of a node row: every member is always written, in this order.
type wireNode struct {
	Name                    string
	Cluster                 string
	IPAddresses             []wireNodeAddress
	IPv4AllocCIDR           *wireCIDR
	IPv4SecondaryAllocCIDRs []*wireCIDR
	IPv6AllocCIDR           *wireCIDR
	IPv6SecondaryAllocCIDRs []*wireCIDR
	IPv4HealthIP            string
	IPv6HealthIP            string
	IPv4IngressIP           string
	IPv6IngressIP           string
	ClusterID               uint32
	Source                  string
	EncryptionKey           uint8
	Labels                  map[string]string
	Annotations             map[string]string
	WireguardPubKey         string
	BootID                  string
}

type wireNodeAddress struct {
	Type string
	IP   string
}

// Nodes returns the codec of the nodes of a cluster.
func Nodes(s Scope) Codec[NodeKey, Node] {
	prefix := NodesPrefix
	if s.Cached {
		prefix = CachedNodesPrefix
	}
	return Codec[NodeKey, Node]{
		Prefix:    prefix + s.Cluster + "/",
		FormatKey: func(k NodeKey) string { return k.Name },
		ParseKey: func(tail string) (NodeKey, error) {
			return NodeKey{Cluster: s.Cluster, Name: tail}, checkName(tail, "node name", tail)
		},
		Encode: func(k NodeKey, n Node) ([]byte, error) { return encodeNode(s, k, n) },
		Decode: func(k NodeKey, b []byte) (Node, error) { return decodeNode(s, k, b) },
		Equal:  Node.Equal,
	}
}

func decodeNode(s Scope, k NodeKey, b []byte) (Node, error) {
	var w wireNode
	if err := decodeJSON(k.Name, b, &w); err != nil {
		return Node{}, err
	}
	n := Node{
		Name: w.Name, Cluster: w.Cluster, ClusterID: w.ClusterID, Source: w.Source,
		EncryptionKey: w.EncryptionKey, Labels: w.Labels, Annotations: w.Annotations,
		WireguardPubKey: w.WireguardPubKey, BootID: w.BootID,
	}
	if err := checkNode(s, k, n); err != nil {
		return Node{}, err
	}
	for _, a := range w.IPAddresses {
		ip, err := parseAddr(k.Name, "address", a.IP)
		if err != nil {
			return Node{}, err
		}
		if ip.IsValid() {
			n.Addresses = append(n.Addresses, NodeAddress{Type: AddressType(a.Type), IP: ip})
		}
	}
	for _, c := range slices.Concat(
		[]*wireCIDR{w.IPv4AllocCIDR}, w.IPv4SecondaryAllocCIDRs,
		[]*wireCIDR{w.IPv6AllocCIDR}, w.IPv6SecondaryAllocCIDRs,
	) {
		if c == nil {
			continue
		}
		p, err := c.prefix(k.Name, "pod CIDR")
		if err != nil {
			return Node{}, err
		}
		// Some writers keep the host bits of the address they were configured with.
		if p = p.Masked(); !slices.Contains(n.PodCIDRs, p) {
			n.PodCIDRs = append(n.PodCIDRs, p)
		}
	}
	slices.SortStableFunc(n.PodCIDRs, func(a, b netip.Prefix) int { return a.Addr().BitLen() - b.Addr().BitLen() })
	for _, f := range []struct {
		name, text string
		to         *netip.Addr
	}{
		{"health address", w.IPv4HealthIP, &n.HealthIPv4},
		{"health address", w.IPv6HealthIP, &n.HealthIPv6},
		{"ingress address", w.IPv4IngressIP, &n.IngressIPv4},
		{"ingress address", w.IPv6IngressIP, &n.IngressIPv6},
	} {
		var err error
		if *f.to, err = parseAddr(k.Name, f.name, f.text); err != nil {
			return Node{}, err
		}
	}
	return n, nil
}

func encodeNode(s Scope, k NodeKey, n Node) ([]byte, error) {
	if err := checkNode(s, k, n); err != nil {
		return nil, err
	}
	w := wireNode{
		Name: n.Name, Cluster: n.Cluster, ClusterID: n.ClusterID, Source: n.Source,
		EncryptionKey: n.EncryptionKey, Labels: n.Labels, Annotations: n.Annotations,
		WireguardPubKey: n.WireguardPubKey, BootID: n.BootID,
		IPv4HealthIP: formatAddr(n.HealthIPv4), IPv6HealthIP: formatAddr(n.HealthIPv6),
		IPv4IngressIP: formatAddr(n.IngressIPv4), IPv6IngressIP: formatAddr(n.IngressIPv6),
	}
	for _, a := range n.Addresses {
		w.IPAddresses = append(w.IPAddresses, wireNodeAddress{Type: string(a.Type), IP: formatAddr(a.IP)})
	}
	for _, p := range n.PodCIDRs {
		if !p.IsValid() || p != p.Masked() {
			return nil, invalid(k.Name, "pod CIDR %s is not valid or has host bits", p)
		}
		first, more := &w.IPv4AllocCIDR, &w.IPv4SecondaryAllocCIDRs
		if p.Addr().Is6() {
			first, more = &w.IPv6AllocCIDR, &w.IPv6SecondaryAllocCIDRs
		}
		if *first == nil {
			*first = cidrOf(p)
		} else {
			*more = append(*more, cidrOf(p))
		}
	}
	return encodeJSON(k.Name, w)
}

// checkNode holds what reader and writer demand alike.
func checkNode(s Scope, k NodeKey, n Node) error {
	if err := checkName(k.Name, "node name", n.Name); err != nil {
		return err
	}
	switch {
	case n.Name != k.Name:
		return invalid(k.Name, "row says name %q", n.Name)
	case n.Cluster != s.Cluster:
		return invalid(k.Name, "row says cluster %q, want %q", n.Cluster, s.Cluster)
	case n.ClusterID != s.ClusterID:
		return invalid(k.Name, "row says cluster id %d, want %d", n.ClusterID, s.ClusterID)
	}
	return nil
}
