// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"strconv"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/datapath"
)

// MapView is one view of the BPF maps of a node, as the local API and, without an
// agent, the command line show it.
type MapView struct {
	Name, About string
	// Get sends at most limit entries as they stand in the kernel; 0 is all.
	Get func(ctx context.Context, limit uint32, send func(*api.MapEntry) error) error
}

// MapViews are those of a node whose maps are pinned below bpffs.
func MapViews(bpffs, node string) []MapView {
	m := pinned{bpffs, node}
	return []MapView{
		mapView(m, "flows", "connections, one entry per direction", (*datapath.Maps).Flows, flowEntry),
		mapView(m, "ipcache", "addresses and prefixes with identity and node", (*datapath.Maps).IPCache, ipcacheEntry),
		mapView(m, "lb", "frontends of services with the backends that take new flows", (*datapath.Maps).Services, lbEntry),
		mapView(m, "endpoint", "endpoints of this node by slot", (*datapath.Maps).Endpoints, endpointEntry),
		mapView(m, "nodes", "other nodes by index", (*datapath.Maps).Nodes, nodeEntry),
		mapView(m, "metrics", "packets and bytes by reason and direction", counters, counterEntry),
	}
}

type pinned struct{ bpffs, node string }

// mapView shows what walk yields, each as a key and a value.
func mapView[T any](at pinned, name, about string, walk func(*datapath.Maps) iter.Seq2[T, error], entry func(T) (string, any)) MapView {
	return MapView{name, about, func(ctx context.Context, limit uint32, send func(*api.MapEntry) error) error {
		maps, err := datapath.OpenMaps(at.bpffs, at.node)
		if err != nil {
			return err
		}
		defer maps.Close()
		var sent uint32
		for row, err := range walk(maps) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return fmt.Errorf("map %s: %w", name, err)
			}
			if sent++; limit > 0 && sent > limit {
				return nil
			}
			key, value := entry(row)
			data, err := json.Marshal(value)
			if err != nil {
				return fmt.Errorf("map %s: %w", name, err)
			}
			if err := send(&api.MapEntry{Key: key, Value: data}); err != nil {
				return err
			}
		}
		return nil
	}}
}

func counters(m *datapath.Maps) iter.Seq2[datapath.CounterTotal, error] {
	return func(yield func(datapath.CounterTotal, error) bool) {
		totals, err := m.Counters()
		if err != nil {
			yield(datapath.CounterTotal{}, err)
			return
		}
		for _, t := range totals {
			if !yield(t, nil) {
				return
			}
		}
	}
}

type flowView struct {
	Source      string   `json:"source"`
	Destination string   `json:"destination"`
	Protocol    string   `json:"protocol"`
	Translated  string   `json:"translated,omitempty"`
	Endpoint    uint16   `json:"endpoint,omitempty"`
	Identity    uint32   `json:"identity"`
	Service     uint16   `json:"service,omitempty"`
	Node        uint16   `json:"node,omitempty"`
	Interface   uint32   `json:"interface,omitempty"`
	MTU         uint16   `json:"mtu,omitempty"`
	Reply       bool     `json:"reply,omitempty"`
	State       []string `json:"state,omitempty"`
	Packets     uint32   `json:"packets"`
	Bytes       uint64   `json:"bytes"`
	Stale       bool     `json:"stale,omitempty"`
	Young       bool     `json:"young,omitempty"`
}

func flowEntry(f datapath.FlowEntry) (string, any) {
	v := flowView{
		Source: f.Source.String(), Destination: f.Destination.String(), Protocol: protocolName(f.Protocol), Endpoint: f.Slot,
		Identity: f.Identity, Service: f.ServiceID, Node: f.NodeIndex, Interface: f.IfIndex, MTU: f.MTU, Reply: f.Reply, State: f.State,
		Packets: f.Packets, Bytes: f.Bytes, Stale: f.Stale, Young: f.Young,
	}
	if f.Translated.IsValid() {
		v.Translated = f.Translated.String()
	}
	return fmt.Sprintf("%s %s->%s from %d", v.Protocol, v.Source, v.Destination, f.Slot), v
}

type ipcacheMapView struct {
	Identity  uint32 `json:"identity"`
	Node      string `json:"node,omitempty"`
	Endpoint  uint16 `json:"endpoint,omitempty"`
	Host      bool   `json:"host,omitempty"`
	OtherNode bool   `json:"otherNode,omitempty"`
}

func ipcacheEntry(r datapath.IPCacheRow) (string, any) {
	return prefixText(r.Prefix), ipcacheMapView{r.Identity, addrText(r.Node), r.Slot, r.Host, r.OtherNode}
}

type lbView struct {
	ID       uint32   `json:"id"`
	Backends []string `json:"backends"`
}

func lbEntry(r datapath.ServiceRow) (string, any) {
	v := lbView{ID: r.ID, Backends: []string{}}
	for _, b := range r.Backends {
		v.Backends = append(v.Backends, b.String())
	}
	return r.Frontend.String() + "/" + protocolName(r.Protocol), v
}

type endpointMapView struct {
	Identity uint32 `json:"identity"`
	IPv4     string `json:"ipv4,omitempty"`
	IPv6     string `json:"ipv6,omitempty"`
	MAC      string `json:"mac"`
	MTU      uint16 `json:"mtu"`
}

func endpointEntry(r datapath.EndpointRow) (string, any) {
	return strconv.Itoa(int(r.Slot)), endpointMapView{r.Identity, addrText(r.IPv4), addrText(r.IPv6), net.HardwareAddr(r.MAC[:]).String(), r.MTU}
}

type nodeMapView struct {
	Address string `json:"address"`
	Tunnel  bool   `json:"tunnel"`
	MTU     uint16 `json:"mtu,omitempty"`
}

func nodeEntry(r datapath.NodeRow) (string, any) {
	return strconv.FormatUint(uint64(r.Index), 10), nodeMapView{addrText(r.Addr), r.Tunnel, r.MTU}
}

type counterView struct {
	Reason    string `json:"reason"`
	Direction string `json:"direction"`
	Packets   uint64 `json:"packets"`
	Bytes     uint64 `json:"bytes"`
}

func counterEntry(t datapath.CounterTotal) (string, any) {
	return t.Reason.String() + "/" + t.Direction, counterView{t.Reason.String(), t.Direction, t.Packets, t.Bytes}
}

// addrText is empty for no address.
func addrText(a netip.Addr) string {
	if !a.IsValid() || a.IsUnspecified() {
		return ""
	}
	return a.String()
}
