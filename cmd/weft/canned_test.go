// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/agent/api"
)

// cannedAgent answers with the same things each time; what was asked for ends up
// in the answers where a script can see it.
type cannedAgent struct{ api.UnimplementedAgentServer }

// minutes is a time that prints as so many minutes ago.
func minutes(n int) int64 {
	return time.Now().Add(-time.Duration(n)*time.Minute - time.Second).UnixNano()
}

func (*cannedAgent) EndpointAdd(_ context.Context, r *api.EndpointAddRequest) (*api.Endpoint, error) {
	if r.Name == "full" {
		return nil, status.Error(codes.ResourceExhausted, "add default/full: 10.1.1.0/24: no free address, 253 in use")
	}
	return &api.Endpoint{
		Id: 3, Namespace: r.Namespace, Name: r.Name, Netns: r.Netns, Interface: r.Interface, HostInterface: "lxc1",
		Addresses: append([]string{"10.1.1.4"}, r.Addresses...), Identity: 65700, Labels: r.Labels, NamedPorts: r.NamedPorts,
		State: "waiting-for-identity", Reason: "no identity yet: store is away",
	}, nil
}

func (*cannedAgent) EndpointDelete(_ context.Context, r *api.EndpointDeleteRequest) (*api.EndpointDeleteResponse, error) {
	return &api.EndpointDeleteResponse{Found: r.Name == "web" || r.Id == 1}, nil
}

func (*cannedAgent) EndpointSet(_ context.Context, r *api.EndpointSetRequest) (*api.Endpoint, error) {
	if r.Id != 1 {
		return nil, status.Error(codes.NotFound, "endpoint 9: not found")
	}
	return &api.Endpoint{Id: 1, Namespace: "default", Name: "web", Addresses: []string{"10.1.1.2"}, Identity: 65600, Labels: r.Labels, State: r.State}, nil
}

func (*cannedAgent) EndpointList(context.Context, *api.EndpointListRequest) (*api.EndpointListResponse, error) {
	return &api.EndpointListResponse{Endpoints: []*api.Endpoint{
		{
			Id: 1, Namespace: "default", Name: "web", Netns: "/run/netns/web", Interface: "eth0", HostInterface: "lxc9",
			Addresses: []string{"10.1.1.2", "fd00::2"}, Identity: 65600, Labels: []string{"k8s:app=web"}, State: "ready", Created: minutes(5),
		},
		{
			Id: 2, Namespace: "default", Name: "db", Addresses: []string{"10.1.1.3"}, State: "waiting-for-identity",
			Reason: "no identity yet", Created: minutes(3),
		},
	}}, nil
}

func (*cannedAgent) TableList(context.Context, *api.TableListRequest) (*api.TableListResponse, error) {
	return &api.TableListResponse{Tables: []*api.Table{
		{Name: "nodes", About: "nodes of all clusters", Rows: 2, Revision: 7, Synced: true, Sources: []*api.TableSource{
			{Name: "etcd", Synced: true, Rows: 1, Confirmed: minutes(6)}, {Name: "cluster/b", Rows: 1},
		}},
		{Name: "ipcache", About: "address to identity", Rows: 1, Revision: 9, Reconciled: true},
	}}, nil
}

func (*cannedAgent) TableGet(r *api.TableGetRequest, stream grpc.ServerStreamingServer[api.TableItem]) error {
	rows := map[string][]*api.Row{
		"nodes": {
			{Key: "b/b1", Value: []byte(`{"clusterID":2,"addresses":["172.16.1.1"],"podCIDRs":["10.2.1.0/24"]}`), Source: "cluster/b", Origin: 12, Revision: 7, Changed: minutes(8)},
			{Key: "a/a1", Value: []byte(`{"clusterID":1,"addresses":["172.16.0.1"],"podCIDRs":["10.1.1.0/24"]}`), Source: "etcd", Origin: 4, Revision: 1, Changed: minutes(9)},
		},
		"ipcache": {{
			Key: "10.2.1.7", Value: []byte(`{"identity":131999,"node":"172.16.1.1","endpoint":0}`), Source: "derived", Revision: 9, Changed: minutes(4),
			Outcome: &api.Outcome{Error: "map ipcache is full: 4096 entries", Attempts: 3, At: minutes(3)},
		}},
		"identities": {{Key: "b/131999", Value: []byte(`{"id":131999,"cluster":"b","labels":"k8s:app=web;"}`), Source: "cluster/b", Changed: minutes(5)}},
		"services":   {{Key: "default/web", Value: []byte(`{"global":true,"affinity":"local","active":2,"frontends":["10.96.0.9:80/TCP"],"remotes":[{"cluster":"b","shared":true,"backends":6},{"cluster":"c","shared":false,"backends":2}]}`), Source: "derived", Changed: minutes(5)}},
	}[r.Table]
	if rows == nil {
		return status.Errorf(codes.NotFound, "table %q: unknown, there are nodes, ipcache", r.Table)
	}
	for _, row := range rows {
		if r.Key != "" && !strings.Contains(row.Key, r.Key) {
			continue
		}
		if err := stream.Send(&api.TableItem{Item: &api.TableItem_Row{Row: row}}); err != nil {
			return err
		}
	}
	return stream.Send(&api.TableItem{Item: &api.TableItem_Mark{Mark: &api.TableMark{Revision: 9, Synced: true}}})
}

// days is so many days and an hour from now.
func days(n int) int64 { return time.Now().Add(time.Duration(24*n+1) * time.Hour).UnixNano() }

func (*cannedAgent) Status(context.Context, *api.StatusRequest) (*api.StatusResponse, error) {
	return &api.StatusResponse{
		Node: "a1", Cluster: "a", ClusterId: 1, Version: "v0.1.0", Started: minutes(10), Pid: 7, Mode: "vxlan", PodCidrs: []string{"10.1.1.0/24"},
		Lines: []*api.StatusLine{
			{Component: "datapath", Health: api.Health_HEALTH_OK, Summary: "programs attached"},
			{Component: "datapath flows", Health: api.Health_HEALTH_WARNING, Summary: "80 % full", Reason: "many flows", Hint: "raise map-flows"},
			{Component: "etcd", Health: api.Health_HEALTH_FAILED, Summary: "away", Reason: "connection refused", Hint: "check that etcd runs", Confirmed: minutes(6)},
			{Component: "metrics", Health: api.Health_HEALTH_OFF, Summary: "off"},
		},
		Remotes: []*api.RemoteCluster{{
			Name: "b", Id: 2, Health: api.Health_HEALTH_OK, State: "ready", Confirmed: minutes(3),
			Synced:         []*api.TableSync{{Table: "nodes", Synced: true, Rows: 2}, {Table: "ip", Rows: 9}},
			OurCertificate: days(300), ServerCertificate: days(20),
		}},
	}, nil
}

func (*cannedAgent) Monitor(_ *api.MonitorRequest, stream grpc.ServerStreamingServer[api.FlowEvent]) error {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC).UnixNano()
	client := &api.FlowEnd{Address: "10.1.1.3", Port: 40000, Identity: 65601, Name: "default/client", Cluster: "a"}
	for _, ev := range []*api.FlowEvent{
		{
			Time: at, Type: "new", Source: client, Destination: &api.FlowEnd{Address: "10.96.0.9", Port: 80, Identity: 131999}, Protocol: "TCP",
			Service: "default/web", Backend: &api.FlowEnd{Address: "10.2.1.7", Port: 8080, Identity: 131999, Name: "default/web", Cluster: "b"},
		},
		{
			Time: at, Type: "refused", Reason: "no backend", Source: client, Lost: 2, Protocol: "UDP",
			Destination: &api.FlowEnd{Address: "fd00::9", Port: 53, Identity: 2},
		},
	} {
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
	return nil
}

func (*cannedAgent) MapGet(r *api.MapGetRequest, stream grpc.ServerStreamingServer[api.MapEntry]) error {
	if r.Map == "metrics" {
		return stream.Send(&api.MapEntry{Key: "a->b", Value: []byte(`{"packets":1}`)})
	}
	if r.Map != "ipcache" {
		return status.Error(codes.Internal, "maps of node a1: no maps are pinned below /sys/fs/bpf")
	}
	for _, e := range []*api.MapEntry{
		{Key: "10.2.1.7", Value: []byte(`{"identity":131999,"node":"172.16.1.1"}`)},
		{Key: "10.1.1.2", Value: []byte(`{"identity":65600,"endpoint":1}`)},
	} {
		if err := stream.Send(e); err != nil {
			return err
		}
	}
	return nil
}
