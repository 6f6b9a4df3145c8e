// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is an etcd and an API server that reaches it through a proxy.
type fixture struct {
	*kvstoretest.Server
	direct   *kvstore.Client
	ca       *kvstoretest.CA
	api      *Server
	address  string
	registry *prometheus.Registry
	stop     func()
	tune     func(*Server) // before it serves; nil: nothing
}

// newFixture starts both; edit may change the server's settings.
func newFixture(t testing.TB, edit func(*Config)) *fixture {
	t.Helper()
	f := &fixture{Server: kvstoretest.Start(t, kvstoretest.Options{}), ca: kvstoretest.NewCA(t, "mesh")}
	f.direct = f.Client()
	f.start(t, edit)
	return f
}

// start runs an API server until the test ends, which follows the etcd.
func (f *fixture) start(t testing.TB, edit func(*Config)) {
	t.Helper()
	f.serve(t, edit)
	f.wantFresh(t)
}

// serve runs an API server until the test ends, which serves something.
func (f *fixture) serve(t testing.TB, edit func(*Config)) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Name, cfg.Cluster, cfg.Etcd, cfg.Listen = "east-1", "east", "etcd.yaml", f.address
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	cfg.CAFile = f.ca.File
	cfg.CertFile, cfg.KeyFile = f.ca.Issue(t, "server", time.Hour)
	if edit != nil {
		edit(&cfg)
	}
	f.registry = prometheus.NewRegistry()
	s, err := New(cfg, kvstoretest.NewClient(t, f.ProxyConfig()), f.registry, kvstoretest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		t.Fatal(err)
	}
	f.api, f.address = s, l.Addr().String()
	if f.tune != nil {
		f.tune(s)
	}
	f.stop = kvstoretest.Go(t, func(ctx context.Context) error { return s.Serve(ctx, l) })
	select {
	case <-s.cache.Ready():
	case <-t.Context().Done():
		t.Fatal("the server is not ready")
	}
}

// wantFresh waits until the server follows the etcd.
func (f *fixture) wantFresh(t testing.TB) {
	t.Helper()
	kvstoretest.Eventually(t, func() string {
		if f.api.cache.Stale() || f.api.cache.Generation().Store.Stats().Filling {
			return "stale"
		}
		return ""
	})
}

// tls returns the settings of a client with a certificate of a name.
func (f *fixture) tls(t testing.TB, name string) *tls.Config {
	t.Helper()
	certFile, keyFile := f.ca.Issue(t, name, time.Hour)
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(f.ca.File)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// dial connects to the server as a user.
func (f *fixture) dial(t testing.TB, name string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	return dial(t, f.address, append(opts, grpc.WithTransportCredentials(credentials.NewTLS(f.tls(t, name))))...)
}

// dialEtcd connects to the etcd itself.
func (f *fixture) dialEtcd(t testing.TB) *grpc.ClientConn {
	t.Helper()
	return dial(t, f.Endpoint()[len("http://"):], grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func dial(t testing.TB, address string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient(address, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// client is a stock client of the server as a user.
func (f *fixture) client(t testing.TB, name string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + f.address}, TLS: f.tls(t, name), DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// next returns the next message of a watch stream, failing after a while.
func next(t testing.TB, st pb.Watch_WatchClient) *pb.WatchResponse {
	t.Helper()
	type result struct {
		resp *pb.WatchResponse
		err  error
	}
	got := make(chan result, 1)
	go func() {
		resp, err := st.Recv()
		got <- result{resp, err}
	}()
	select {
	case r := <-got:
		if r.err != nil {
			t.Fatal(r.err)
		}
		return r.resp
	case <-time.After(20 * time.Second):
		t.Fatal("no message")
	}
	return nil
}

// send asks something on a watch stream.
func send(t testing.TB, st pb.Watch_WatchClient, req any) {
	t.Helper()
	m := &pb.WatchRequest{}
	switch r := req.(type) {
	case *pb.WatchCreateRequest:
		m.RequestUnion = &pb.WatchRequest_CreateRequest{CreateRequest: r}
	case *pb.WatchCancelRequest:
		m.RequestUnion = &pb.WatchRequest_CancelRequest{CancelRequest: r}
	case *pb.WatchProgressRequest:
		m.RequestUnion = &pb.WatchRequest_ProgressRequest{ProgressRequest: r}
	}
	if err := st.Send(m); err != nil {
		t.Fatal(err)
	}
}

// openWatch opens a watch stream that ends with the test.
func openWatch(t testing.TB, c *grpc.ClientConn) pb.Watch_WatchClient {
	t.Helper()
	st, err := pb.NewWatchClient(c).Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// credentialsOf lets a connection be one of a user.
func credentialsOf(f *fixture, t testing.TB, name string) grpc.DialOption {
	return grpc.WithTransportCredentials(credentials.NewTLS(f.tls(t, name)))
}
