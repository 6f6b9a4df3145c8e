// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/weft-net/weft/apiserver"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/embedded"
)

// Servers that clients of a mesh may be served by.
const (
	kindEtcd      = "etcd"
	kindWeft      = "weft"
	kindCoalesced = "weft, 20 ms" // with a window in which changes are coalesced
	kindProxy     = "grpc-proxy"  // etcd's own
	kindFloor     = "floor"       // writes bytes that are encoded already, and does nothing else
)

// coalesceWindow is what the goal of C4 is made for.
const coalesceWindow = 20 * time.Millisecond

// serveTask is what a server's process is told.
type serveTask struct {
	Kind    string `json:"kind"`
	Address string `json:"address"` // address:port on which it serves with TLS
	Etcd    string `json:"etcd"`    // URL of the etcd behind it; unused by the etcd itself and the floor
	Dir     string `json:"dir"`     // of the etcd
	Files   pki    `json:"files"`
}

// serveAnswer is the line of a server after each command.
type serveAnswer struct {
	Error   string `json:"error,omitempty"`
	Encoded uint64 `json:"encoded,omitempty"` // bytes of events that were encoded so far
}

// runServe is the process of a server. It says a line when it serves, and ends with its input. Commands:
//
//	encoded          how many bytes of events were encoded (weft)
//	write N RATE     write N events, so many a second (the floor)
func runServe(ctx context.Context, arg string, in io.Reader, out io.Writer) error {
	var task serveTask
	if err := json.Unmarshal([]byte(arg), &task); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	command, err := serveAs(ctx, task, g)
	if err != nil {
		cancel()
		return errors.Join(fmt.Errorf("serve as %s: %w", task.Kind, err), g.Wait())
	}
	answers := json.NewEncoder(out)
	if err := answers.Encode(serveAnswer{}); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		a, err := command(lines.Text())
		if err != nil {
			a.Error = err.Error()
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
	cancel()
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return lines.Err()
}

// serveAs starts a server and returns what carries out its commands.
func serveAs(ctx context.Context, task serveTask, g *errgroup.Group) (command func(line string) (serveAnswer, error), err error) {
	none := func(string) (serveAnswer, error) { return serveAnswer{}, errors.New("no such command") }
	if task.Kind == kindEtcd {
		s, err := embedded.Start(ctx, embedded.Config{
			Dir: filepath.Join(task.Dir, "etcd"), ClientURL: "https://" + task.Address, UnsafeNoFsync: true,
			CAFile: task.Files.CA, CertFile: task.Files.ServerCert, KeyFile: task.Files.ServerKey,
		})
		if err != nil {
			return nil, err
		}
		g.Go(func() error {
			<-ctx.Done()
			s.Kill()
			return nil
		})
		return none, nil
	}
	l, err := net.Listen("tcp", task.Address)
	if err != nil {
		return nil, err
	}
	switch task.Kind {
	case kindWeft, kindCoalesced:
		return serveWeft(ctx, task, g, l)
	case kindProxy:
		return none, serveProxy(ctx, task, g, l)
	case kindFloor:
		return serveFloor(ctx, task, g, l)
	}
	return nil, errors.Join(errors.New("no such server"), l.Close())
}

// serveWeft runs an API server.
func serveWeft(ctx context.Context, task serveTask, g *errgroup.Group, l net.Listener) (func(string) (serveAnswer, error), error) {
	cfg := apiserver.DefaultConfig()
	cfg.Name, cfg.Cluster, cfg.Etcd, cfg.Listen = "bench-1", scope().Cluster, "unused", task.Address
	cfg.CAFile, cfg.CertFile, cfg.KeyFile = task.Files.CA, task.Files.ServerCert, task.Files.ServerKey
	if task.Kind == kindCoalesced {
		cfg.Coalesce = coalesceWindow
	}
	client, err := kvstore.New(task.Files.client(task.Etcd), slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	registry := prometheus.NewRegistry()
	s, err := apiserver.New(cfg, client, registry, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, errors.Join(err, client.Close(), l.Close())
	}
	g.Go(func() error {
		defer client.Close()
		return s.Serve(ctx, l)
	})
	return func(line string) (serveAnswer, error) {
		if line != "encoded" {
			return serveAnswer{}, errors.New("no such command")
		}
		families, err := registry.Gather()
		for _, f := range families {
			if f.GetName() == "weft_apiserver_encoded_bytes_total" {
				return serveAnswer{Encoded: uint64(f.GetMetric()[0].GetCounter().GetValue())}, err
			}
		}
		return serveAnswer{}, errors.Join(errors.New("the server has no such metric"), err)
	}, nil
}

// serveProxy runs etcd's own proxy, as its command does but for what is not asked of it here: leases,
// locks, elections, metrics.
func serveProxy(ctx context.Context, task serveTask, g *errgroup.Group, l net.Listener) error {
	tlsConfig, err := task.Files.clientTLS()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	client, err := clientv3.New(clientv3.Config{
		Context: ctx, Endpoints: []string{task.Etcd}, TLS: tlsConfig, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithUnaryInterceptor(grpcproxy.AuthUnaryClientInterceptor),
			grpc.WithStreamInterceptor(grpcproxy.AuthStreamClientInterceptor),
		},
	})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	s, err := task.Files.server()
	if err != nil {
		return errors.Join(err, client.Close(), l.Close())
	}
	kv, _ := grpcproxy.NewKvProxy(client)
	watch, over := grpcproxy.NewWatchProxy(ctx, zap.NewNop(), client)
	pb.RegisterKVServer(s, kv)
	pb.RegisterWatchServer(s, watch)
	g.Go(func() error { return s.Serve(l) })
	g.Go(func() error {
		<-ctx.Done()
		s.Stop()
		<-over
		return client.Close()
	})
	return nil
}
