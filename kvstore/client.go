// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
)

// KV is one key as it stands in the store.
type KV struct {
	Key            string
	Value          []byte
	CreateRevision int64
	ModRevision    int64
	Lease          clientv3.LeaseID // 0: none
}

func kvOf(kv *mvccpb.KeyValue) KV {
	return KV{string(kv.Key), kv.Value, kv.CreateRevision, kv.ModRevision, clientv3.LeaseID(kv.Lease)}
}

// Client is a connection to one etcd. It reconnects by itself. Its errors name the endpoint and
// the reason where the connection is the cause (*EndpointError).
type Client struct {
	cfg      Config
	log      *slog.Logger
	etcd     *clientv3.Client
	problems *problems
	limit    *rate.Limiter // nil: none
	shown    shown
	guard    atomic.Pointer[Guard] // of the store behind it; nil: none
}

// New returns a client. Nothing is connected before the first request. Close it after use.
func New(cfg Config, log *slog.Logger) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("etcd client: %w", err)
	}
	cfg = cfg.withDefaults()
	// Many clients with the same list must not all begin with the same member.
	cfg.Endpoints = slices.Clone(cfg.Endpoints)
	for i, ep := range cfg.Endpoints {
		cfg.Endpoints[i] = strings.TrimSuffix(ep, "/")
	}
	rand.Shuffle(len(cfg.Endpoints), func(i, j int) {
		cfg.Endpoints[i], cfg.Endpoints[j] = cfg.Endpoints[j], cfg.Endpoints[i]
	})

	c := &Client{cfg: cfg, log: log, problems: &problems{scheme: "http", last: map[string]problem{}}}
	if cfg.QPS > 0 {
		c.limit = rate.NewLimiter(rate.Limit(cfg.QPS), cfg.Burst)
	}
	d := &dialer{
		timeout:     cfg.DialTimeout,
		userTimeout: cfg.KeepAliveTimeout,
		aliases:     cfg.HostAliases,
		secure:      cfg.secure(),
		problems:    c.problems,
	}
	ec := clientv3.Config{
		Endpoints:            cfg.Endpoints,
		DialTimeout:          cfg.DialTimeout,
		DialKeepAliveTime:    cfg.KeepAlive,
		DialKeepAliveTimeout: cfg.KeepAliveTimeout,
		MaxCallRecvMsgSize:   cfg.MaxMessageBytes,
		Logger:               zap.NewNop(), // what it would log comes back as an error
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(d.dial),
			// The library's pauses grow to two minutes; an etcd that is back is wanted at once.
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           grpcbackoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
				MinConnectTimeout: cfg.DialTimeout,
			}),
		},
	}
	if cfg.Sticky {
		// The library asks for round_robin in the service config; without one it is pick_first.
		ec.DialOptions = append(ec.DialOptions, grpc.WithDisableServiceConfig())
	}
	if d.secure {
		c.problems.scheme = "https"
		ec.TLS = tlsConfig(cfg, "") // says that TLS is wanted; the credentials below do it
		ec.DialOptions = append(ec.DialOptions, grpc.WithTransportCredentials(newTransportCredentials(cfg, c.problems, &c.shown)))
	}
	var err error
	if c.etcd, err = clientv3.New(ec); err != nil {
		return nil, fmt.Errorf("etcd client: %w", err)
	}
	return c, nil
}

// Close ends the connections. Requests in progress fail.
func (c *Client) Close() error {
	if err := c.etcd.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close etcd client: %w", err)
	}
	return nil
}

// Etcd is the client library's client, for what has no method here.
func (c *Client) Etcd() *clientv3.Client { return c.etcd }

// Endpoints are the URLs in the order they are tried.
func (c *Client) Endpoints() []string { return slices.Clone(c.cfg.Endpoints) }

// Get reads one key. The bool tells whether it exists.
func (c *Client) Get(ctx context.Context, key string) (KV, bool, error) {
	var resp *clientv3.GetResponse
	err := c.do(ctx, "get "+key, func(ctx context.Context) (err error) {
		resp, err = c.etcd.Get(ctx, key)
		return err
	})
	if err != nil || len(resp.Kvs) == 0 {
		return KV{}, false, err
	}
	return kvOf(resp.Kvs[0]), true, nil
}

// Put writes one key, attached to lease unless that is 0, and returns the revision.
func (c *Client) Put(ctx context.Context, key string, value []byte, lease clientv3.LeaseID) (int64, error) {
	var resp *clientv3.PutResponse
	err := c.do(ctx, "put "+key, func(ctx context.Context) (err error) {
		resp, err = c.etcd.Put(ctx, key, string(value), clientv3.WithLease(lease))
		return err
	})
	if err != nil {
		return 0, err
	}
	return resp.Header.Revision, nil
}

// Delete removes one key and tells whether it existed.
func (c *Client) Delete(ctx context.Context, key string) (bool, error) {
	var resp *clientv3.DeleteResponse
	err := c.do(ctx, "delete "+key, func(ctx context.Context) (err error) {
		resp, err = c.etcd.Delete(ctx, key)
		return err
	})
	return err == nil && resp.Deleted > 0, err
}

// Status asks each endpoint until one answers.
func (c *Client) Status(ctx context.Context) (*clientv3.StatusResponse, error) {
	var errs []error
	for _, ep := range c.cfg.Endpoints {
		var resp *clientv3.StatusResponse
		err := c.do(ctx, "status", func(ctx context.Context) (err error) {
			resp, err = c.etcd.Status(ctx, ep)
			return err
		})
		if err == nil {
			return resp, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// do runs one request under the rate limit and the request timeout.
func (c *Client) do(ctx context.Context, step string, call func(context.Context) error) error {
	if c.limit != nil {
		if err := c.limit.Wait(ctx); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
	}
	return c.request(ctx, step, call)
}

func (c *Client) request(ctx context.Context, step string, call func(context.Context) error) error {
	rctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	err := call(rctx)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		// The caller gave up; what the library makes of that is not the reason.
		if _, _, ok := c.problems.newest(); !ok || errors.Is(ctx.Err(), context.Canceled) {
			return fmt.Errorf("%s: %w", step, ctx.Err())
		}
		err = ctx.Err()
	}
	return fmt.Errorf("%s: %w", step, c.problems.explain(err, c.cfg.Endpoints))
}
