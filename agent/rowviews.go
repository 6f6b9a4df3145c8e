// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"strconv"

	"github.com/weft-net/weft/agent/endpoint"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
)

// The forms in which the local API shows rows. Their JSON is what scripts read:
// fields are added, never renamed.

type nodeView struct {
	Cluster   string            `json:"cluster"`
	ClusterID uint32            `json:"clusterID"`
	Name      string            `json:"name"`
	Addresses []netip.Addr      `json:"addresses"` // on the underlay
	Inside    []netip.Addr      `json:"inside"`    // in the cluster network
	PodCIDRs  []netip.Prefix    `json:"podCIDRs"`
	Labels    map[string]string `json:"labels,omitempty"`
}

func viewNode(k schema.NodeKey, n schema.Node) any {
	v := nodeView{Cluster: k.Cluster, ClusterID: n.ClusterID, Name: k.Name, PodCIDRs: n.PodCIDRs, Labels: n.Labels}
	for _, a := range n.Addresses {
		switch a.Type {
		case schema.InternalIP, schema.ExternalIP:
			v.Addresses = append(v.Addresses, a.IP)
		case schema.CiliumInternalIP:
			v.Inside = append(v.Inside, a.IP)
		}
	}
	return v
}

type ipView struct {
	Cluster        string     `json:"cluster"`
	Prefix         string     `json:"prefix"`
	Identity       uint32     `json:"identity"`
	Node           string     `json:"node,omitempty"` // its address
	Namespace      string     `json:"namespace,omitempty"`
	Name           string     `json:"name,omitempty"`
	ServiceAccount string     `json:"serviceAccount,omitempty"`
	NamedPorts     []portView `json:"namedPorts,omitempty"`
	EncryptionKey  uint8      `json:"encryptionKey,omitempty"`
}

type portView struct {
	Name     string          `json:"name"`
	Port     uint16          `json:"port"`
	Protocol schema.Protocol `json:"protocol"`
}

func viewPorts(ports []schema.NamedPort) []portView {
	var v []portView
	for _, p := range ports {
		v = append(v, portView{p.Name, p.Port, p.Protocol})
	}
	return v
}

func viewIP(k schema.IPKey, ip schema.IP) any {
	w := ip.Workload.Unpack()
	v := ipView{
		Cluster: k.Cluster, Prefix: k.String(), Identity: ip.ID, Namespace: w.Namespace, Name: w.Name,
		ServiceAccount: w.ServiceAccount, NamedPorts: viewPorts(w.NamedPorts), EncryptionKey: ip.Key,
	}
	if ip.HostIP.IsValid() {
		v.Node = ip.HostIP.String()
	}
	return v
}

type identityView struct {
	ID      uint32 `json:"id"`
	Cluster string `json:"cluster"`
	Labels  string `json:"labels"`
}

func viewIdentity(k schema.IdentityKey, labels string) any {
	return identityView{k.ID, k.Cluster, labels}
}

type endpointView struct {
	Node           string            `json:"node"`
	ID             uint32            `json:"id"`
	Namespace      string            `json:"namespace"`
	Name           string            `json:"name"`
	Addresses      []netip.Addr      `json:"addresses"`
	Identity       uint32            `json:"identity"`
	State          string            `json:"state"`
	Reason         string            `json:"reason,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"`
	IdentityLabels string            `json:"identityLabels,omitempty"`
	NamedPorts     []portView        `json:"namedPorts,omitempty"`
	ServiceAccount string            `json:"serviceAccount,omitempty"`
	NetNS          string            `json:"netns,omitempty"`
	Interface      string            `json:"interface,omitempty"`
	HostInterface  string            `json:"hostInterface,omitempty"`
}

func viewEndpoint(k schema.EndpointKey, e schema.Endpoint) any {
	return endpointView{
		Node: k.Node, ID: k.ID, Namespace: e.Namespace, Name: e.Name, Addresses: e.Addresses, Identity: e.Identity,
		State: e.State.String(), Labels: e.Labels, NamedPorts: viewPorts(e.NamedPorts), ServiceAccount: e.ServiceAccount,
	}
}

func viewLocalEndpoint(node string) func(endpoint.ID, endpoint.Endpoint) any {
	return func(id endpoint.ID, e endpoint.Endpoint) any {
		return endpointView{
			Node: node, ID: uint32(id), Namespace: e.Namespace, Name: e.Name, Addresses: e.Addresses, Identity: e.Identity,
			State: e.State(), Reason: e.Reason, Labels: e.Labels, IdentityLabels: e.IdentityLabels,
			NamedPorts: viewPorts(e.NamedPorts), ServiceAccount: e.ServiceAccount,
			NetNS: e.NetNS, Interface: e.Interface, HostInterface: e.HostInterface,
		}
	}
}

type definitionView struct {
	Ports       []definitionPort    `json:"ports"`
	Selector    map[string]string   `json:"selector,omitempty"`
	Backends    []definitionBackend `json:"backends,omitempty"`
	Annotations map[string]string   `json:"annotations,omitempty"`
	Labels      map[string]string   `json:"labels,omitempty"`
	VIPs        []netip.Addr        `json:"vips"`
}

type definitionPort struct {
	Name       string          `json:"name,omitempty"`
	Protocol   schema.Protocol `json:"protocol"`
	Port       uint16          `json:"port"`
	TargetPort uint16          `json:"targetPort,omitempty"`
	TargetName string          `json:"targetName,omitempty"`
}

type definitionBackend struct {
	Address  netip.Addr        `json:"address"`
	Ports    map[string]uint16 `json:"ports,omitempty"`
	Hostname string            `json:"hostname,omitempty"`
	State    string            `json:"state"`
}

func viewDefinition(_ schema.DefinitionKey, d schema.Definition) any {
	v := definitionView{Selector: d.Selector, Annotations: d.Annotations, Labels: d.Labels, VIPs: d.VIPs}
	for _, p := range d.Ports {
		v.Ports = append(v.Ports, definitionPort(p))
	}
	for _, b := range d.Backends {
		v.Backends = append(v.Backends, definitionBackend{b.Addr, b.Ports, b.Hostname, b.State.String()})
	}
	return v
}

type remoteServiceView struct {
	Cluster   string              `json:"cluster"`
	ClusterID uint32              `json:"clusterID"`
	Shared    bool                `json:"shared"`
	Frontends map[string][]string `json:"frontends"`
	Backends  map[string][]string `json:"backends"`
}

func viewRemoteService(_ schema.ServiceKey, s schema.ClusterService) any {
	ports := func(m map[netip.Addr]map[string]schema.L4) map[string][]string {
		out := map[string][]string{}
		for a, byName := range m {
			list := []string{}
			for _, name := range sortedKeys(byName) {
				p := byName[name]
				text := strconv.Itoa(int(p.Port)) + "/" + p.Protocol.String()
				if name != "" {
					text = name + "=" + text
				}
				list = append(list, text)
			}
			out[a.String()] = list
		}
		return out
	}
	return remoteServiceView{s.Cluster, s.ClusterID, s.Shared, ports(s.Frontends), ports(s.Backends)}
}

type frontendView struct {
	Service  string        `json:"service"`
	Port     string        `json:"port,omitempty"`
	Global   bool          `json:"global"`
	Affinity string        `json:"affinity,omitempty"`
	Chosen   int           `json:"chosen"` // so many of backends take new flows
	Backends []backendView `json:"backends"`
}

type backendView struct {
	Address string `json:"address"`
	Cluster string `json:"cluster"`
	State   string `json:"state"`
	Chosen  bool   `json:"chosen"`
}

func viewFrontend(_ service.Frontend, s service.Service) any {
	v := frontendView{Service: s.Name.String(), Port: s.Port, Global: s.Global, Affinity: s.Affinity.String(), Chosen: s.Chosen, Backends: []backendView{}}
	for i, b := range s.Backends {
		v.Backends = append(v.Backends, backendView{b.Addr.String(), b.Cluster, b.State.String(), i < s.Chosen})
	}
	return v
}

type serviceView struct {
	Global      bool         `json:"global"`
	Shared      bool         `json:"shared"`
	Affinity    string       `json:"affinity"`
	Frontends   []string     `json:"frontends"`
	Active      int          `json:"active"`
	Terminating int          `json:"terminating"`
	Remotes     []remoteView `json:"remotes,omitempty"`
	Problems    []string     `json:"problems,omitempty"`
}

type remoteView struct {
	Cluster  string `json:"cluster"`
	Shared   bool   `json:"shared"`
	Backends int    `json:"backends"`
}

func viewService(_ schema.DefinitionKey, i service.Info) any {
	v := serviceView{
		Global: i.Options.Global, Shared: i.Options.Shared, Affinity: i.Options.Affinity.String(), Frontends: []string{},
		Active: i.Active, Terminating: i.Terminating,
	}
	for _, f := range i.Frontends {
		v.Frontends = append(v.Frontends, f.String())
	}
	for _, r := range i.Remotes {
		v.Remotes = append(v.Remotes, remoteView(r))
	}
	for _, p := range i.Problems {
		v.Problems = append(v.Problems, p.String())
	}
	return v
}
