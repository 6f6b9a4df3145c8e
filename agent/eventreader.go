// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/datapath"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
)

// eventReader reads the kernel's events and says whose they are.
type eventReader struct {
	datapath *datapath.Datapath
	events   *events
	names    *names
	log      *slog.Logger
}

// Run reads until ctx ends. Without a follower an event is read and forgotten.
func (r *eventReader) Run(ctx context.Context) error {
	err := r.datapath.ReadEvents(ctx, func(ev datapath.Event) error {
		if r.events.wanted() {
			r.events.publish(r.flowEvent(ev))
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

func (r *eventReader) flowEvent(ev datapath.Event) *api.FlowEvent {
	v := &api.FlowEvent{
		Time: nanos(ev.Time), Type: ev.Kind.String(), Direction: ev.Direction, Protocol: protocolName(ev.Protocol),
		Source:      r.names.end(ev.Source, ev.SourceIdentity),
		Destination: r.names.end(ev.Destination, ev.DestinationIdentity),
		Endpoint:    uint32(ev.SourceSlot), TcpFlags: uint32(ev.TCPFlags),
		Packets: ev.Packets, Bytes: ev.Bytes, ReplyPackets: ev.ReplyPackets, ReplyBytes: ev.ReplyBytes,
	}
	if v.Endpoint == 0 {
		v.Endpoint = uint32(ev.DestinationSlot)
	}
	if ev.Kind == datapath.EventRefused {
		v.Reason = ev.Reason.String()
	}
	if ev.Backend.IsValid() {
		v.Backend = r.names.end(ev.Backend, ev.DestinationIdentity)
	}
	if f, ok := r.datapath.ServiceName(ev.ServiceID); ok && ev.ServiceID != 0 {
		v.Service = r.names.service(f)
	}
	if ev.NodeIndex != 0 {
		if a := r.datapath.NodeAddr(ev.NodeIndex); a.IsValid() {
			v.Node = a.String()
		}
	}
	return v
}

func protocolName(n uint8) string {
	switch n {
	case 1:
		return "ICMP"
	case 58:
		return "ICMPv6"
	}
	if p := schema.Protocol(n); p == schema.TCP || p == schema.UDP || p == schema.SCTP {
		return p.String()
	}
	return fmt.Sprintf("proto-%d", n)
}

// names says who has an address.
type names struct {
	cfg    Config
	tables tables
	cache  func(netip.Prefix) (datapath.IPCacheEntry, bool)
}

func newNames(cfg Config, a *Agent) *names {
	return &names{cfg, a.tables, func(p netip.Prefix) (datapath.IPCacheEntry, bool) {
		row, ok := a.datapath.IPCache().Get(p)
		return row.Value, ok
	}}
}

// end describes one end of a flow.
func (n *names) end(at netip.AddrPort, number uint32) *api.FlowEnd {
	e := &api.FlowEnd{Address: at.Addr().String(), Port: uint32(at.Port()), Identity: number}
	prefix := netip.PrefixFrom(at.Addr(), at.Addr().BitLen())
	entry, ok := n.cache(prefix)
	if !ok {
		return e
	}
	e.Cluster = entry.Cluster
	if number == 0 {
		e.Identity = entry.Identity
	}
	if row, ok := n.tables.ips.Get(schema.IPKey{Cluster: entry.Cluster, Prefix: prefix}); ok {
		if w := row.Value.Workload; w.Name() != "" {
			e.Name = w.Namespace() + "/" + w.Name()
		}
	}
	if row, ok := n.tables.identities.Get(schema.IdentityKey{Cluster: entry.Cluster, ID: e.Identity}); ok {
		e.Labels = slices.DeleteFunc(strings.Split(row.Value, ";"), func(s string) bool { return s == "" })
	}
	if e.Name == "" && entry.Kind == datapath.KindSelf {
		e.Name = "node/" + n.cfg.Node
	}
	return e
}

// service names the service behind a frontend, or the frontend if that is gone.
func (n *names) service(f service.Frontend) string {
	if row, ok := n.tables.frontends.Get(f); ok {
		return row.Value.Name.String()
	}
	return f.String()
}
