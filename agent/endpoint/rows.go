// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/weft-net/weft/datapath"
	"github.com/weft-net/weft/kvstore/schema"
)

// localRow is what the datapath sees of an endpoint.
func localRow(e Endpoint) datapath.LocalEndpoint {
	return datapath.LocalEndpoint{
		ID: uint16(e.ID), Slot: uint16(e.ID), Name: e.FullName().String(), NetNSPath: e.NetNS, IfName: e.HostInterface,
		IPv4: e.address(false), IPv6: e.address(true), MAC: e.MAC, Identity: e.Identity,
	}
}

// endpointRow is what our cluster's agents see of it: services select by its labels.
func endpointRow(e Endpoint) schema.Endpoint {
	return schema.Endpoint{
		Namespace: e.Namespace, Name: e.Name, Addresses: e.Addresses, Labels: e.Labels, Identity: e.Identity,
		NamedPorts: e.NamedPorts, State: e.Readiness, ServiceAccount: e.ServiceAccount,
	}
}

// IPRows gives what the whole mesh sees of an endpoint of our cluster whose node
// has the address host: one row per address of the endpoint.
func IPRows(host netip.Addr) func(schema.EndpointKey, schema.Endpoint) map[schema.IPKey]schema.IP {
	return func(k schema.EndpointKey, e schema.Endpoint) map[schema.IPKey]schema.IP {
		ip := schema.IP{HostIP: host, ID: e.Identity, Workload: schema.Workload{
			Metadata:  ipOwner(k) + strconv.FormatUint(uint64(k.ID), 10),
			Namespace: e.Namespace, Name: e.Name, ServiceAccount: e.ServiceAccount, NamedPorts: e.NamedPorts,
		}.Pack()}
		rows := map[schema.IPKey]schema.IP{}
		for _, a := range e.Addresses {
			rows[schema.IPKey{Cluster: k.Cluster, Prefix: netip.PrefixFrom(a, a.BitLen())}] = ip
		}
		return rows
	}
}

// OwnsIP says that an ip row is one of a node's endpoints.
func OwnsIP(cluster, node string) func(schema.IPKey, schema.IP) bool {
	owner := ipOwner(schema.EndpointKey{Cluster: cluster, Node: node})
	return func(_ schema.IPKey, ip schema.IP) bool { return strings.HasPrefix(ip.Workload.Metadata(), owner) }
}

// ipOwner is how the metadata of an ip row begins that is of this node.
func ipOwner(k schema.EndpointKey) string {
	return fmt.Sprintf("cilium-global:%s:%s:", k.Cluster, k.Node)
}

// published says whether others may know of it: not before packets to it can pass,
// and not after it began to go.
func published(e Endpoint) bool { return e.Phase == Live && e.Identity != 0 }
