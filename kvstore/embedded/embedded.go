// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package embedded runs one etcd member inside the process: the store of a lab cluster or a part of
// it, and the real thing that tests kill, wipe and compact. It is not for production clusters, which bring
// their own etcd; it knows nothing of what stands in the store. Tests and the lab import it.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

// Config says how the member runs. Dir and ClientURL are required.
type Config struct {
	// Name is the member's name. Default "weft".
	Name string
	// Dir keeps the data. A start on a directory that was used before continues with its data.
	Dir string
	// ClientURL is where clients connect, for example https://10.0.0.1:2379. With http there is
	// no encryption and no certificate is asked for.
	ClientURL string
	// PeerURL is where other members connect, without encryption. Default http://127.0.0.1:0: there
	// are none.
	PeerURL string
	// Cluster has the peer URL of each member by its name, this one's too: the member is one of
	// several. The first start of all of them needs more than half of them at the same time. Default:
	// this member alone.
	Cluster map[string]string
	// Join says that the cluster runs already and was told of this member, which begins without data:
	// so a member that lost its data comes back, after it was removed and added. Cluster then lists
	// those that the cluster knows. A member that has data does not look at it.
	Join bool
	// CAFile, CertFile and KeyFile are required with https. The client must show a certificate
	// that CAFile signed; its common name is the etcd user.
	CAFile, CertFile, KeyFile string
	// Token makes the cluster id together with Name and PeerURL. Default "weft": a wiped member
	// that starts with the same settings has the same cluster id.
	Token string
	// QuotaBytes limits the database. Default 2 GiB.
	QuotaBytes int64
	// UnsafeNoFsync trades durability against power loss for speed; a killed process loses nothing.
	UnsafeNoFsync bool
	// SnapshotCount is the number of changes between two snapshots. Default: etcd's.
	SnapshotCount uint64
	// StartTimeout bounds the wait for a leader, and so for more than half of the members. Default
	// 30 s.
	StartTimeout time.Duration
}

// Server is a running member.
type Server struct {
	cfg  Config
	etcd *embed.Etcd
	grpc *grpcServers // what clients are connected to
}

// Start runs a member and returns when it serves: of several members, each start waits until more
// than half of them were started. Its listeners are opened in the network namespace
// of the calling thread.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	ec, err := etcdConfig(&cfg)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	s := &Server{cfg: cfg, grpc: &grpcServers{serves: make(chan struct{})}}
	ec.ServiceRegister = s.grpc.add
	e, err := embed.StartEtcd(ec)
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", cfg.Dir, err)
	}
	s.etcd = e
	timeout := time.NewTimer(cfg.StartTimeout)
	defer timeout.Stop()
	select {
	// A member that is ready has yet to read its certificate; what is wrong with that is an error, or
	// the member would take connections and never say a word.
	case <-s.grpc.serves:
		return s, nil
	case <-e.Server.StopNotify():
		err = errors.New("stopped while starting")
	case err = <-e.Err():
	case <-timeout.C:
		err = fmt.Errorf("no leader after %s", cfg.StartTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.Kill()
	return nil, fmt.Errorf("start etcd in %s: %w", cfg.Dir, err)
}

// Stop lets running requests end, then stops the member. The data stays.
func (s *Server) Stop() { s.etcd.Close() }

// Kill stops the member without waiting for anything: open connections are cut, requests in
// progress are answered with an error or not at all. The data stays.
func (s *Server) Kill() {
	s.etcd.Server.HardStop()
	// Close waits for streams to end by themselves; a watch never does.
	s.grpc.stop()
	s.etcd.Close()
}

// Wipe stops the member and removes its data, as a lost disk does. One of several must be removed
// from the cluster and added again before it may start with Join: it has promised what it forgot.
func (s *Server) Wipe() error {
	s.Kill()
	if err := os.RemoveAll(s.cfg.Dir); err != nil {
		return fmt.Errorf("wipe etcd: %w", err)
	}
	return nil
}

// Restart starts a member again with the settings of one that was stopped, on the same directory
// and ports.
func (s *Server) Restart(ctx context.Context) error {
	n, err := Start(ctx, s.cfg)
	if err != nil {
		return err
	}
	s.etcd, s.grpc = n.etcd, n.grpc
	return nil
}

// Config returns the settings the member runs with, defaults filled in.
func (s *Server) Config() Config { return s.cfg }

// Endpoint is the client URL.
func (s *Server) Endpoint() string { return s.cfg.ClientURL }

// KV answers as the member does to clients without authentication, but for streams, and without a
// connection: for tests that ask so often that messages would be most of the work. It is that of this
// start of the member.
func (s *Server) KV() pb.KVServer { return v3rpc.NewQuotaKVServer(s.etcd.Server) }

// Err reports when the member broke by itself. It is closed by Stop.
func (s *Server) Err() <-chan error { return s.etcd.Err() }

// grpcServers collects the servers that etcd creates after it is ready.
type grpcServers struct {
	serves chan struct{} // closed when there is one

	mu      sync.Mutex
	list    []*grpc.Server
	stopped bool
}

func (g *grpcServers) add(s *grpc.Server) {
	g.mu.Lock()
	if len(g.list) == 0 {
		close(g.serves)
	}
	g.list = append(g.list, s)
	stopped := g.stopped
	g.mu.Unlock()
	if stopped {
		s.Stop()
	}
}

func (g *grpcServers) stop() {
	g.mu.Lock()
	g.stopped = true
	list := g.list
	g.mu.Unlock()
	for _, s := range list {
		s.Stop()
	}
}

func etcdConfig(cfg *Config) (*embed.Config, error) {
	if cfg.Dir == "" {
		return nil, errors.New("no data directory is set")
	}
	if cfg.Name == "" {
		cfg.Name = "weft"
	}
	if cfg.Token == "" {
		cfg.Token = "weft"
	}
	if cfg.PeerURL == "" {
		cfg.PeerURL = "http://127.0.0.1:0"
	}
	if cfg.QuotaBytes == 0 {
		cfg.QuotaBytes = 2 << 30
	}
	if cfg.StartTimeout == 0 {
		cfg.StartTimeout = 30 * time.Second
	}
	client, err := url.Parse(cfg.ClientURL)
	if err != nil || client.Host == "" {
		return nil, fmt.Errorf("client url %q is not a URL with a host", cfg.ClientURL)
	}
	peer, err := url.Parse(cfg.PeerURL)
	if err != nil || peer.Host == "" {
		return nil, fmt.Errorf("peer url %q is not a URL with a host", cfg.PeerURL)
	}
	if err := os.MkdirAll(filepath.Clean(cfg.Dir), 0o700); err != nil {
		return nil, err
	}

	ec := embed.NewConfig()
	ec.Name = cfg.Name
	ec.Dir = cfg.Dir
	ec.ListenClientUrls = []url.URL{*client}
	ec.AdvertiseClientUrls = []url.URL{*client}
	// gRPC has the port for itself. Shared with HTTP, one idle connection that never says which
	// of both it wants would block Close for ever, and watches starve under TLS.
	ec.ListenClientHttpUrls = []url.URL{{Scheme: client.Scheme, Host: "127.0.0.1:0"}}
	ec.ListenPeerUrls = []url.URL{*peer}
	ec.AdvertisePeerUrls = []url.URL{*peer}
	if ec.InitialCluster, err = initialCluster(cfg); err != nil {
		return nil, err
	}
	if cfg.Join {
		ec.ClusterState = embed.ClusterStateFlagExisting
	}
	ec.InitialClusterToken = cfg.Token
	ec.QuotaBackendBytes = cfg.QuotaBytes
	ec.UnsafeNoFsync = cfg.UnsafeNoFsync
	if cfg.SnapshotCount > 0 {
		ec.SnapshotCount = cfg.SnapshotCount
	}
	// A single member has nobody to agree with: short ticks only shorten its start and let
	// leases be as short as a second. Several keep etcd's, or a busy machine makes them elect
	// leaders; their leases are two seconds at least.
	if len(cfg.Cluster) <= 1 {
		ec.TickMs, ec.ElectionMs = 50, 500
	}
	ec.EnableGRPCGateway = false
	// A connection that says nothing must not hold up Close for two minutes.
	ec.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.ConnectionTimeout(5 * time.Second)}
	// What etcd has to say at Close is noise ("use of closed network connection"), and what is
	// wrong at start comes back as an error.
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	switch client.Scheme {
	case "http":
	case "https":
		if cfg.CAFile == "" || cfg.CertFile == "" || cfg.KeyFile == "" {
			return nil, fmt.Errorf("client url %s needs a CA, a certificate and a key file", cfg.ClientURL)
		}
		ec.ClientTLSInfo = transport.TLSInfo{
			CertFile:       cfg.CertFile,
			KeyFile:        cfg.KeyFile,
			TrustedCAFile:  cfg.CAFile,
			ClientCertAuth: true,
		}
	default:
		return nil, fmt.Errorf("client url %s is neither http nor https", cfg.ClientURL)
	}
	return ec, nil
}

// initialCluster is the list of members as etcd reads it.
func initialCluster(cfg *Config) (string, error) {
	if len(cfg.Cluster) == 0 {
		return cfg.Name + "=" + cfg.PeerURL, nil
	}
	if own, ok := cfg.Cluster[cfg.Name]; !ok || own != cfg.PeerURL {
		return "", fmt.Errorf("member %s with peer url %s is not one of the cluster's", cfg.Name, cfg.PeerURL)
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(cfg.Cluster)) {
		all = append(all, name+"="+cfg.Cluster[name])
	}
	return strings.Join(all, ","), nil
}
