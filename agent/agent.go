// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/agent/endpoint"
	"github.com/weft-net/weft/agent/ipam"
	"github.com/weft-net/weft/clustermesh"
	"github.com/weft-net/weft/datapath"
	"github.com/weft-net/weft/identity"
	"github.com/weft-net/weft/internal/metrics"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
	"github.com/weft-net/weft/state"
)

// etcd is the source of rows that come from our own cluster's store.
const etcd state.Source = "etcd"

// Agent is one node's agent.
type Agent struct {
	cfg         Config
	log         *slog.Logger
	started     time.Time
	client      *kvstore.Client
	session     *kvstore.Session
	tables      tables
	guard       *kvstore.Guard
	watches     watches
	stores      stores
	allocator   *identity.Allocator
	pools       []*ipam.Pool
	endpoints   *endpoint.Manager
	mesh        *clustermesh.Mesh
	checkpoints *checkpoints
	datapath    *datapath.Datapath
	server      *server
	parts       []part // what Run runs
}

// part is a component with its name.
type part struct {
	name string
	run  func(context.Context) error
}

// until runs the part; that it ends with ctx is no error.
func (p part) until(ctx context.Context) error {
	if err := p.run(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return nil
}

// New puts an agent together. It reads the etcd client file and touches nothing
// else outside.
func New(cfg Config, log *slog.Logger) (_ *Agent, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	filter, err := cfg.labelFilter()
	if err != nil {
		return nil, err
	}
	etcdConfig, err := kvstore.ReadConfigFile(cfg.Etcd)
	if err != nil {
		return nil, err
	}
	registry := metrics.NewRegistry()
	a := &Agent{cfg: cfg, log: log, started: time.Now(), tables: newTables()}

	// The store of our cluster.
	if a.client, err = kvstore.New(etcdConfig, log.With("part", "etcd")); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.client.Close()
		}
	}()
	a.session = kvstore.NewSession(a.client, kvstore.SessionConfig{TTL: cfg.LeaseTTL}, log.With("part", "session"))
	a.guard = kvstore.NewGuard(a.client, kvstore.GuardConfig{
		Cluster: cfg.Cluster, File: filepath.Join(cfg.StateDir, "lineage", cfg.Cluster), Owners: true, Lease: cfg.LeaseTTL,
	}, log.With("part", "guard"))

	// The other clusters, what our own store holds and gets, and what follows from all of them.
	a.checkpoints = newCheckpoints(cfg, a.client, a.tables, func() clustermesh.Status { return a.mesh.Status() }, log.With("part", "checkpoint"))
	a.mesh, err = clustermesh.New(clustermesh.Config{
		Dir: cfg.ClusterMeshDir, Cluster: cfg.Cluster, ClusterID: cfg.ClusterID, MaxClusters: cfg.MaxClusters, Kept: a.checkpoints,
		Own: a.client, Peers: a.client,
		Settled: func() bool { return a.watches.listed() && !a.guard.Status().Hold.Holding },
		// A remote does not tell its leases' time; the clusters of a mesh are taken to be set alike.
		Guard: kvstore.GuardConfig{Owners: true, Lease: cfg.LeaseTTL}, Lineage: filepath.Join(cfg.StateDir, "lineage"),
	}, clustermesh.Tables{
		Nodes: a.tables.nodes, IPs: a.tables.ips, Identities: a.tables.identities, Services: a.tables.remoteServices,
	}, registry, log.With("part", "clustermesh"))
	if err != nil {
		return nil, err
	}
	a.watches = newWatches(a.client, a.guard, cfg, a.tables, a.mesh.OwnIPs(), log.With("part", "watch"))
	a.checkpoints.watches = a.watches.kept()
	a.stores = newStores(a.client, a.session, cfg, a.tables, a.watches, log.With("part", "publish"))
	services := &services{
		cfg: service.Config{Cluster: cfg.Cluster, ClusterID: cfg.ClusterID}, hold: defaultServiceHold, had: a.leftFrontends,
		definitions: a.tables.definitions, endpoints: a.tables.endpoints, remote: a.tables.remoteServices,
		restored: a.checkpoints.restored, frontends: a.tables.frontends, infos: a.tables.services,
	}
	clusters := &clusters{cfg: cfg, nodes: a.tables.nodes, clusters: a.tables.clusters}

	// The kernel, and the endpoints of this node.
	a.datapath, err = datapath.New(cfg.datapath(), datapath.Tables{
		Endpoints: a.tables.own.Local, IPs: a.tables.ips, Nodes: a.tables.nodes, Clusters: a.tables.clusters, Frontends: a.tables.frontends,
	}, log.With("part", "datapath"), registry)
	if err != nil {
		return nil, err
	}
	a.allocator, err = identity.NewAllocator(identity.Config{
		Cluster: cfg.Cluster, ClusterID: cfg.ClusterID, MaxClusters: cfg.MaxClusters, Node: cfg.Addresses[0], Holding: a.guard.Holding,
	}, a.client, a.session, a.tables.identities, log.With("part", "identity"))
	if err != nil {
		return nil, err
	}
	numbers := &identities{cluster: cfg.Cluster, filter: filter, allocator: a.allocator, known: a.tables.identities, log: log.With("part", "identity")}
	for _, p := range cfg.sortedPodCIDRs() {
		a.pools = append(a.pools, ipam.New(ipam.Config{Prefix: p, Rest: cfg.AddressRest}))
	}
	a.endpoints = endpoint.New(endpoint.Config{
		Cluster: cfg.Cluster, Node: cfg.Node, Dir: filepath.Join(cfg.StateDir, "endpoints"), Limit: int(cfg.Maps.Endpoints) - 1,
	}, a.tables.own, a.pools, a.datapath, numbers, log.With("part", "endpoint"))
	renumbering := &renumbering{held: a.allocator.Held(), endpoints: a.endpoints, log: log.With("part", "endpoint")}

	owners := &owners{
		cfg: cfg, client: a.client, guard: a.guard, lease: func() kvstore.Lease { return a.session.Status().Lease },
		node: a.tables.publishedNode, endpoints: a.tables.own.Published, nodes: a.tables.nodes.Len, log: log.With("part", "owners"),
	}

	// What people and machines see of it.
	views, events := a.tables.views(a), newEvents()
	reader := &eventReader{datapath: a.datapath, events: events, names: newNames(cfg, a), log: log.With("part", "events")}
	a.server = &server{
		socket: cfg.Socket, cluster: cfg.Cluster, guards: a.guards, endpoints: a.endpoints, tables: views, maps: MapViews(cfg.BPFFS, cfg.Node), status: a.Status, events: events,
	}
	for _, c := range []prometheus.Collector{newStateCollector(views, a.watches.status, a.Status, a.client), newCheckpointCollector(a.checkpoints), newHoldCollector(a.guards)} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	serveMetrics := func(ctx context.Context) error { return metrics.Serve(ctx, cfg.Metrics, registry) }

	a.parts = append(a.parts,
		part{"local api", a.server.Run}, part{"metrics", serveMetrics}, part{"events", reader.Run},
		part{"endpoints", a.endpoints.Run}, part{"identities", a.allocator.Run}, part{"renumbering", renumbering.Run},
		part{"services", services.Run}, part{"clusters", clusters.Run}, part{"clustermesh", a.mesh.Run},
	)
	a.parts = append(a.parts, a.stores.parts()...)
	for _, w := range a.watches.parts() {
		a.parts = append(a.parts, part{w.name, a.checkpoints.after(w.run)})
	}
	a.parts = append(a.parts, part{"checkpoints", a.checkpoints.Run}, part{"lists", a.checkpoints.follow}, part{"guard", a.guard.Run}, part{"owners", owners.Run})
	a.parts = append(a.parts, part{"session", a.session.Run})
	return a, nil
}

// guards are those of all stores, by cluster.
func (a *Agent) guards() map[string]*kvstore.Guard {
	guards := a.mesh.Guards()
	guards[a.cfg.Cluster] = a.guard
	return guards
}

// Run is the life of the agent: it ends with ctx, or with the first part that
// breaks for good. Packets flow on without it.
func (a *Agent) Run(ctx context.Context) (err error) {
	defer func() {
		if closed := a.client.Close(); err == nil && closed != nil {
			err = fmt.Errorf("close etcd client: %w", closed)
		}
	}()
	if err := a.server.listen(ctx); err != nil { // first, for it keeps a second agent out
		return err
	}
	defer a.server.listener.release()
	if err := a.endpoints.Restore(a.leftEndpoints()); err != nil {
		return err
	}
	a.stores.announce(a.cfg)
	a.log.Info("agent started", "node", a.cfg.Node, "cluster", a.cfg.Cluster, "id", a.cfg.ClusterID, "version", Version())

	group, ctx := errgroup.WithContext(ctx)
	for _, p := range a.parts {
		group.Go(func() error { return p.until(ctx) })
	}
	// The datapath ends after all who use it: it closes maps under nobody's hands.
	below, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	kernel := make(chan error, 1)
	group.Go(func() error { // ends the others when the datapath breaks
		select {
		case err := <-kernel:
			kernel <- err
			return err
		case <-ctx.Done():
			return nil
		}
	})
	go func() { kernel <- part{"datapath", a.datapath.Run}.until(below) }()
	err = group.Wait()
	cancel()
	if broken := <-kernel; err == nil {
		err = broken
	}
	a.log.Info("agent stopped", "node", a.cfg.Node)
	return err
}

// Tables of definitions and endpoints are of our cluster only; the others hold
// rows of all clusters.
type tables struct {
	nodes          *state.Table[schema.NodeKey, schema.Node]
	ips            *state.Table[schema.IPKey, schema.IP]
	identities     *state.Table[schema.IdentityKey, string]
	endpoints      *state.Table[schema.EndpointKey, schema.Endpoint]
	definitions    *state.Table[schema.DefinitionKey, schema.Definition]
	remoteServices *state.Table[schema.ServiceKey, schema.ClusterService]

	clusters  *state.Table[string, datapath.Cluster]
	frontends *state.Table[service.Frontend, service.Service]
	services  *state.Table[schema.DefinitionKey, service.Info]

	own           endpoint.Tables
	publishedNode *state.Table[schema.NodeKey, schema.Node]
}

func newTables() tables {
	return tables{
		nodes:          state.NewTable[schema.NodeKey]("nodes", schema.Node.Equal),
		ips:            state.NewTable[schema.IPKey]("ips", state.Equal[schema.IP]),
		identities:     state.NewTable[schema.IdentityKey]("identities", state.Equal[string]),
		endpoints:      state.NewTable[schema.EndpointKey]("endpoints", schema.Endpoint.Equal),
		definitions:    state.NewTable[schema.DefinitionKey]("definitions", schema.Definition.Equal),
		remoteServices: state.NewTable[schema.ServiceKey]("remote-services", schema.ClusterService.Equal),
		clusters:       state.NewTable[string]("clusters", equalClusters),
		frontends:      newFrontendTable(),
		services:       newServiceTable(),
		own:            endpoint.NewTables(),
		publishedNode:  state.NewTable[schema.NodeKey]("published-nodes", schema.Node.Equal),
	}
}
