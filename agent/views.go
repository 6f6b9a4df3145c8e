// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"strconv"

	"github.com/weft-net/weft/agent/endpoint"
	"github.com/weft-net/weft/datapath"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
	"github.com/weft-net/weft/state"
)

// views shows every table that the agent works from.
func (t tables) views(a *Agent) []tableView {
	name := func(k schema.DefinitionKey) []string { return []string{k.Namespace, k.Name} }
	node := func(k schema.NodeKey) []string { return []string{k.Cluster, k.Name} }
	endpointKey := func(k schema.EndpointKey) []string { return []string{k.Node, strconv.FormatUint(uint64(k.ID), 10)} }
	return []tableView{
		viewOf(t.nodes, columns[schema.NodeKey, schema.Node]{
			about: "nodes of all clusters", parts: node, value: viewNode,
		}),
		viewOf(t.ips, columns[schema.IPKey, schema.IP]{
			about: "addresses and prefixes of all clusters with their identities", value: viewIP,
			parts: func(k schema.IPKey) []string { return []string{k.Cluster, k.String()} },
		}),
		viewOf(t.identities, columns[schema.IdentityKey, string]{
			about: "identities of all clusters with their labels", value: viewIdentity,
			parts: func(k schema.IdentityKey) []string { return []string{k.Cluster, strconv.FormatUint(uint64(k.ID), 10)} },
		}),
		viewOf(t.endpoints, columns[schema.EndpointKey, schema.Endpoint]{
			about: "endpoints of our cluster", parts: endpointKey, also: endpointNames, value: viewEndpoint,
		}),
		viewOf(t.definitions, columns[schema.DefinitionKey, schema.Definition]{
			about: "services of our cluster as they were defined", parts: name, value: viewDefinition,
		}),
		viewOf(t.remoteServices, columns[schema.ServiceKey, schema.ClusterService]{
			about: "services that the other clusters show", value: viewRemoteService,
			parts: func(k schema.ServiceKey) []string { return []string{k.Cluster, k.Namespace, k.Name} },
		}),
		viewOf(t.clusters, columns[string, datapath.Cluster]{
			about: "clusters of the mesh", parts: func(k string) []string { return []string{k} }, value: viewCluster,
		}),
		viewOf(t.services, columns[schema.DefinitionKey, service.Info]{
			about: "what became of the services of our cluster", parts: name, value: viewService,
		}),
		viewOf(t.frontends, columns[service.Frontend, service.Service]{
			about: "addresses of services with their backends in all clusters", value: viewFrontend, outcome: a.datapath.FrontendOutcome,
			parts: func(k service.Frontend) []string { return []string{k.String()} },
			also: func(k service.Frontend, s service.Service) []string {
				return []string{k.Addr.String(), k.Addr.Addr().String(), s.Name.String()}
			},
		}),
		viewOf(a.datapath.IPCache(), columns[netip.Prefix, datapath.IPCacheEntry]{
			about: "address or prefix to identity and node, as the kernel shall have it", value: viewIPCache, outcome: a.datapath.IPCacheOutcome,
			parts: func(k netip.Prefix) []string { return []string{prefixText(k)} },
		}),
		viewOf(t.own.Endpoints, columns[endpoint.ID, endpoint.Endpoint]{
			about: "endpoints of this node", value: viewLocalEndpoint(a.cfg.Node),
			also: func(_ endpoint.ID, e endpoint.Endpoint) []string {
				return append(addressTexts(e.Addresses), e.FullName().String())
			},
			outcome: func(id endpoint.ID) (state.Outcome, bool) { return a.datapath.EndpointOutcome(uint16(id)) },
			parts:   func(k endpoint.ID) []string { return []string{strconv.Itoa(int(k))} },
		}),
		viewOf(t.own.Published, columns[schema.EndpointKey, schema.Endpoint]{
			about: "endpoints of this node as they stand in the store, with their addresses", parts: endpointKey, value: viewEndpoint, outcome: a.stores.endpoints.Outcome,
		}),
		viewOf(t.publishedNode, columns[schema.NodeKey, schema.Node]{
			about: "this node as it stands in the store", parts: node, value: viewNode, outcome: a.stores.node.Outcome,
		}),
	}
}

// endpointNames are the texts, besides its number, by which people know an endpoint.
func endpointNames(_ schema.EndpointKey, e schema.Endpoint) []string {
	return append(addressTexts(e.Addresses), e.Namespace+"/"+e.Name)
}

func addressTexts(list []netip.Addr) []string {
	var out []string
	for _, a := range list {
		out = append(out, a.String())
	}
	return out
}

// prefixText leaves the length of a single address out.
func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

type clusterView struct {
	ID     uint32         `json:"id"`
	Pinned []netip.Prefix `json:"pinned,omitempty"`
}

func viewCluster(_ string, c datapath.Cluster) any { return clusterView{c.ID, c.Pinned} }

type ipcacheView struct {
	Cluster  string `json:"cluster"`
	Identity uint32 `json:"identity"`
	Node     string `json:"node,omitempty"`
	Endpoint uint16 `json:"endpoint,omitempty"`
	Kind     string `json:"kind"`
}

func viewIPCache(_ netip.Prefix, e datapath.IPCacheEntry) any {
	v := ipcacheView{Cluster: e.Cluster, Identity: e.Identity, Endpoint: e.Slot, Kind: e.Kind.String()}
	if e.Node.IsValid() {
		v.Node = e.Node.String()
	}
	return v
}
