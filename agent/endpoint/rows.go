// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"fmt"
	"net/netip"

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

// ipRows are what the whole mesh sees: one row per address.
func ipRows(cfg Config, e Endpoint) map[schema.IPKey]schema.IP {
	workload := schema.Workload{
		Metadata:  fmt.Sprintf("cilium-global:%s:%s:%d", cfg.Cluster, cfg.Node, e.ID),
		Namespace: e.Namespace, Name: e.Name, ServiceAccount: e.ServiceAccount, NamedPorts: e.NamedPorts,
	}.Pack()
	rows := map[schema.IPKey]schema.IP{}
	for _, a := range e.Addresses {
		rows[schema.IPKey{Cluster: cfg.Cluster, Prefix: netip.PrefixFrom(a, a.BitLen())}] = schema.IP{
			HostIP: cfg.HostIP, ID: e.Identity, Workload: workload,
		}
	}
	return rows
}

// published says whether others may know of it: not before packets to it can pass,
// and not after it began to go.
func published(e Endpoint) bool { return e.Phase == Live && e.Identity != 0 }
