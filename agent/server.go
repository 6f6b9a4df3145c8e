// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/agent/endpoint"
	"github.com/weft-net/weft/agent/ipam"
	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/datapath"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// server answers the local API from the agent's parts.
type server struct {
	api.UnimplementedAgentServer

	socket    string
	cluster   string                           // ours
	guards    func() map[string]*kvstore.Guard // of the stores of all clusters
	listener  *socket
	endpoints *endpoint.Manager
	tables    []tableView
	maps      []MapView
	status    func(context.Context) *api.StatusResponse
	events    *events
}

// listen makes the socket; it is what keeps a second agent out.
func (s *server) listen(ctx context.Context) (err error) {
	s.listener, err = listen(ctx, s.socket)
	return err
}

// Run serves what listen made until ctx ends. Streams that still run then are cut.
func (s *server) Run(ctx context.Context) error {
	g := grpc.NewServer(grpc.MaxRecvMsgSize(api.MaxMessage), grpc.MaxSendMsgSize(api.MaxMessage), grpc.WaitForHandlers(true))
	api.RegisterAgentServer(g, s)
	stop := context.AfterFunc(ctx, g.Stop) // closes the listener, which ends Serve
	defer stop()
	if err := g.Serve(s.listener); err != nil && ctx.Err() == nil {
		return fmt.Errorf("local api: %w", err)
	}
	g.Stop() // waits for handlers, also when AfterFunc came first
	return nil
}

// EndpointAdd implements the API.
func (s *server) EndpointAdd(ctx context.Context, r *api.EndpointAddRequest) (*api.Endpoint, error) {
	spec, err := specOf(r)
	if err != nil {
		return nil, apiError(err)
	}
	e, err := s.endpoints.Add(ctx, spec)
	if err != nil {
		return nil, apiError(err)
	}
	return apiEndpoint(e), nil
}

// EndpointDelete implements the API.
func (s *server) EndpointDelete(ctx context.Context, r *api.EndpointDeleteRequest) (*api.EndpointDeleteResponse, error) {
	id, err := idOf(r.Id)
	if err != nil {
		return nil, apiError(err)
	}
	found, err := s.endpoints.Delete(ctx, id, endpoint.Name{Namespace: r.Namespace, Name: r.Name})
	if err != nil {
		return nil, apiError(err)
	}
	return &api.EndpointDeleteResponse{Found: found}, nil
}

// EndpointSet implements the API.
func (s *server) EndpointSet(ctx context.Context, r *api.EndpointSetRequest) (*api.Endpoint, error) {
	id, err := idOf(r.Id)
	if err != nil {
		return nil, apiError(err)
	}
	var change endpoint.Change
	if r.SetLabels {
		if change.Labels, err = parseLabels(r.Labels); err != nil {
			return nil, apiError(err)
		}
	}
	if r.State != "" {
		state, err := schema.ParseEndpointState(r.State)
		if err != nil {
			return nil, apiError(&endpoint.SpecError{Field: "state", Reason: err.Error()})
		}
		change.Readiness = &state
	}
	e, err := s.endpoints.Set(ctx, id, endpoint.Name{Namespace: r.Namespace, Name: r.Name}, change)
	if err != nil {
		return nil, apiError(err)
	}
	return apiEndpoint(e), nil
}

// EndpointList implements the API.
func (s *server) EndpointList(context.Context, *api.EndpointListRequest) (*api.EndpointListResponse, error) {
	reply := &api.EndpointListResponse{}
	for _, e := range s.endpoints.List() {
		reply.Endpoints = append(reply.Endpoints, apiEndpoint(e))
	}
	return reply, nil
}

// TableList implements the API.
func (s *server) TableList(context.Context, *api.TableListRequest) (*api.TableListResponse, error) {
	reply := &api.TableListResponse{}
	for _, t := range s.tables {
		reply.Tables = append(reply.Tables, t.about())
	}
	return reply, nil
}

// TableGet implements the API.
func (s *server) TableGet(r *api.TableGetRequest, stream grpc.ServerStreamingServer[api.TableItem]) error {
	for _, t := range s.tables {
		if t.name == r.Table {
			return apiError(t.get(stream.Context(), r.Key, r.Watch, stream.Send))
		}
	}
	names := make([]string, 0, len(s.tables))
	for _, t := range s.tables {
		names = append(names, t.name)
	}
	return status.Errorf(codes.NotFound, "table %q: unknown, there are %s", r.Table, strings.Join(names, ", "))
}

// Status implements the API.
func (s *server) Status(ctx context.Context, _ *api.StatusRequest) (*api.StatusResponse, error) {
	return s.status(ctx), nil
}

// Monitor implements the API.
func (s *server) Monitor(r *api.MonitorRequest, stream grpc.ServerStreamingServer[api.FlowEvent]) error {
	filter, err := newEventFilter(r)
	if err != nil {
		return apiError(err)
	}
	return apiError(s.events.follow(stream.Context(), filter, stream.Send))
}

// MapList implements the API.
func (s *server) MapList(context.Context, *api.MapListRequest) (*api.MapListResponse, error) {
	reply := &api.MapListResponse{}
	for _, m := range s.maps {
		reply.Maps = append(reply.Maps, &api.Map{Name: m.Name, About: m.About})
	}
	return reply, nil
}

// MapGet implements the API.
func (s *server) MapGet(r *api.MapGetRequest, stream grpc.ServerStreamingServer[api.MapEntry]) error {
	for _, m := range s.maps {
		if m.Name == r.Map {
			return apiError(m.Get(stream.Context(), r.Limit, stream.Send))
		}
	}
	return status.Errorf(codes.NotFound, "map %q: unknown", r.Map)
}

// apiError gives an error the code by which callers tell what to do.
func apiError(err error) error {
	var (
		spec      *endpoint.SpecError
		exists    *endpoint.ExistsError
		missing   *endpoint.NotFoundError
		full      *endpoint.FullError
		exhausted *ipam.ExhaustedError
		address   *ipam.AddressError
		clash     *datapath.NameClashError
		mapFull   *bpf.FullError
	)
	code := codes.Internal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &spec):
		code = codes.InvalidArgument
	case errors.As(err, &exists):
		code = codes.AlreadyExists
	case errors.As(err, &missing):
		code = codes.NotFound
	case errors.As(err, &full), errors.As(err, &exhausted), errors.As(err, &mapFull):
		code = codes.ResourceExhausted
	case errors.As(err, &address), errors.As(err, &clash):
		code = codes.FailedPrecondition
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	default:
		if s, ok := status.FromError(err); ok { // of Send
			return s.Err()
		}
	}
	return status.Error(code, err.Error())
}

func idOf(id uint32) (endpoint.ID, error) {
	if id > 65535 {
		return 0, &endpoint.SpecError{Field: "id", Reason: fmt.Sprintf("%d is not within 1 to 65535", id)}
	}
	return endpoint.ID(id), nil
}

func specOf(r *api.EndpointAddRequest) (endpoint.Spec, error) {
	spec := endpoint.Spec{
		Name: endpoint.Name{Namespace: r.Namespace, Name: r.Name}, NetNS: r.Netns, Interface: r.Interface, ServiceAccount: r.ServiceAccount,
	}
	var err error
	if spec.Labels, err = parseLabels(r.Labels); err != nil {
		return spec, err
	}
	for _, text := range r.Addresses {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return spec, &endpoint.SpecError{Field: "addresses", Reason: fmt.Sprintf("%q is not an address", text)}
		}
		spec.Addresses = append(spec.Addresses, a)
	}
	for _, p := range r.NamedPorts {
		protocol, err := schema.ParseProtocol(p.Protocol)
		if err != nil || p.Port > 65535 {
			return spec, &endpoint.SpecError{Field: "named ports", Reason: fmt.Sprintf("%s: %d/%s is not a port", p.Name, p.Port, p.Protocol)}
		}
		spec.NamedPorts = append(spec.NamedPorts, schema.NamedPort{Name: p.Name, Port: uint16(p.Port), Protocol: protocol})
	}
	slices.SortFunc(spec.NamedPorts, func(a, b schema.NamedPort) int { return strings.Compare(a.Name, b.Name) })
	return spec, nil
}

// parseLabels reads [source:]key=value; the source is k8s where none is given.
func parseLabels(list []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, text := range list {
		key, value, _ := strings.Cut(text, "=")
		if !strings.Contains(key, ":") {
			key = "k8s:" + key
		}
		if _, twice := labels[key]; twice {
			return nil, &endpoint.SpecError{Field: "labels", Reason: fmt.Sprintf("%q is given twice", key)}
		}
		labels[key] = value
	}
	return labels, nil
}

func apiEndpoint(e endpoint.Endpoint) *api.Endpoint {
	v := &api.Endpoint{
		Id: uint32(e.ID), Namespace: e.Namespace, Name: e.Name, Netns: e.NetNS, Interface: e.Interface, HostInterface: e.HostInterface,
		Identity: e.Identity, State: e.State(), Reason: e.Reason, Created: nanos(e.Created), ServiceAccount: e.ServiceAccount,
	}
	for _, a := range e.Addresses {
		v.Addresses = append(v.Addresses, a.String())
	}
	for _, k := range sortedKeys(e.Labels) {
		v.Labels = append(v.Labels, k+"="+e.Labels[k])
	}
	for _, l := range strings.Split(strings.TrimSuffix(e.IdentityLabels, ";"), ";") {
		if l != "" {
			v.IdentityLabels = append(v.IdentityLabels, l)
		}
	}
	for _, p := range e.NamedPorts {
		v.NamedPorts = append(v.NamedPorts, &api.NamedPort{Name: p.Name, Port: uint32(p.Port), Protocol: p.Protocol.String()})
	}
	return v
}
