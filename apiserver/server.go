// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/apiserver/cache"
	"github.com/weft-net/weft/kvstore"
)

// errNotReady is what a client gets before the store was read for the first time.
var errNotReady = status.Error(codes.Unavailable, "the store was not read yet")

const (
	// maxRequest is the largest request that is taken. etcd takes 1.5 MiB and some, for the values of
	// puts; 128 reads with keys of a kilobyte fit in this.
	maxRequest = 128 << 10
	// maxCalls is how many calls one connection may have open at once; a client has all its watches in
	// a few.
	maxCalls = 512
	// shortestPing is how often a client may ping at most. Cilium does every 15 s, which the library
	// would cut off by default.
	shortestPing = 5 * time.Second
)

// Server is one API server.
type Server struct {
	cfg     Config
	log     *slog.Logger
	cache   *cache.Cache
	users   *users
	budget  *budget
	files   *files
	gate    gate
	renewer Renewer       // nil: nobody renews the certificates of peers
	member  uint64        // id of this replica
	closed  chan struct{} // is closed
	codec   codec         // of all messages
	shared  atomic.Pointer[sharedMessage]

	senders sync.WaitGroup // what goes on for a call beside its handler
	refused atomic.Uint64  // requests and connections over a limit
	stuck   atomic.Uint64  // calls ended because nobody read
	events  atomic.Uint64  // delivered to watches
	encoded atomic.Uint64  // bytes of events that were encoded for one watch only
}

// New returns a server of the etcd behind client. Nothing is read or listened to before Run.
func New(cfg Config, client *kvstore.Client, registry prometheus.Registerer, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c, err := cache.New(client, cfg.cache(), log)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, log: log, cache: c, member: memberID(cfg.Cluster, cfg.Name), closed: make(chan struct{}),
		codec:  newCodec(),
		users:  &users{cluster: cfg.Cluster, limits: cfg.Limits, byName: map[string]*user{}},
		budget: newBudget(cfg.Limits.Large),
	}
	s.files = &files{cfg: cfg, log: log, banned: s.gate.check}
	close(s.closed)
	if err := registry.Register(collector{s, client}); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return s, nil
}

// memberID is the id under which clients know a replica.
func memberID(cluster, name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(cluster + "/" + name))
	return max(h.Sum64(), 1)
}

// Run listens and serves until ctx ends. Certificates that cannot be read are an error at the start;
// later ones leave those in force that are.
func (s *Server) Run(ctx context.Context) error {
	if err := s.files.read(); err != nil {
		return fmt.Errorf("API server: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("API server: %w", err)
	}
	return s.Serve(ctx, l)
}

// Serve serves on a listener until ctx ends. It closes the listener.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	g := grpc.NewServer(
		grpc.Creds(handshake{credentials.NewTLS(s.files.tlsConfig()), s}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: shortestPing, PermitWithoutStream: true}),
		// A client that is gone without a word is found out, with its streams.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}),
		grpc.ForceServerCodecV2(s.codec),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxConcurrentStreams(maxCalls),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.StatsHandler(s.budget),
		grpc.UnaryInterceptor(refuseUnary),
		grpc.StreamInterceptor(refuseStream),
		grpc.WaitForHandlers(true),
	)
	pb.RegisterKVServer(g, kvServer{Server: s})
	pb.RegisterWatchServer(g, watchServer{Server: s})
	pb.RegisterMaintenanceServer(g, maintenanceServer{Server: s})
	pb.RegisterClusterServer(g, clusterServer{Server: s})
	pb.RegisterAuthServer(g, authServer{Server: s})
	pb.RegisterLeaseServer(g, pb.UnimplementedLeaseServer{})
	g.RegisterService(s.peering(), s)
	h := health.NewServer()
	healthpb.RegisterHealthServer(g, h)
	h.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)

	run, ctx := errgroup.WithContext(ctx)
	run.Go(func() error { return s.cache.Run(ctx) })
	run.Go(func() error {
		select {
		case <-s.cache.Ready():
			h.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
			st := s.cache.Generation().Store.Stats()
			s.log.Info("serving", "address", l.Addr().String(), "keys", st.Keys, "revision", st.Revision)
		case <-ctx.Done():
		}
		<-ctx.Done()
		h.Shutdown()
		g.Stop()
		return ctx.Err()
	})
	run.Go(func() error {
		if err := g.Serve(l); err != nil {
			return fmt.Errorf("API server: %w", err)
		}
		return ctx.Err()
	})
	err := run.Wait()
	s.senders.Wait()
	if errors.Is(err, context.Canceled) {
		return context.Canceled
	}
	return err
}

// header is the head of a message of a generation at a revision.
func (s *Server) header(gen *cache.Generation, revision int64) *pb.ResponseHeader {
	h := &pb.ResponseHeader{Revision: revision}
	s.fill(h, gen)
	return h
}

// fill completes a header that has its revision.
func (s *Server) fill(h *pb.ResponseHeader, gen *cache.Generation) {
	h.ClusterId, h.MemberId, h.RaftTerm = gen.ClusterID, s.member, s.cache.Term()
}
