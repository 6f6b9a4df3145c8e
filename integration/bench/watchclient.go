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
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/internal/stats"
)

// openAtOnce is how many clients connect at the same time: a handshake is work for both sides.
const openAtOnce = 32

// clientPatience is how long clients may wait for what they expect before the run is given up.
const clientPatience = 2 * time.Minute

// watchTask is what a process of clients is told.
type watchTask struct {
	Address string `json:"address"`
	Prefix  string `json:"prefix"`
	Files   pki    `json:"files"`
}

// watchAnswer is the line of clients after each command.
type watchAnswer struct {
	Error  string        `json:"error,omitempty"`
	Events int64         `json:"events"` // that came since the last answer
	Bytes  int64         `json:"bytes"`  // that came since the last answer, over all connections
	P50    time.Duration `json:"p50"`    // from before the put to the client
	P99    time.Duration `json:"p99"`
	At     time.Time     `json:"at"` // when the last came
}

// watchers are clients that do nothing but watch or list, each over a TLS connection of its own.
type watchers struct {
	task  watchTask
	creds credentials.TransportCredentials

	conns   []*grpc.ClientConn
	streams sync.WaitGroup
	opened  atomic.Int64 // watches that stand
	came    atomic.Int64 // events
	bytes   atomic.Int64
	changed chan struct{} // holds one when opened or came may be what is waited for

	mu  sync.Mutex
	lag []float64 // seconds, since the last answer
	at  time.Time // when the last event came
	err error     // why a watch cannot go on
}

// runWatch is the process of clients. It ends with its input. Commands:
//
//	open N      have N watches, of what happens from then on; answers when they stand
//	expect N    answers when N more events have come, to all together
//	reopened N  answers when N watches stood again since the last such question
//	list N      N clients connect and list the prefix at once; answers when the last has it
func runWatch(ctx context.Context, arg string, in io.Reader, out io.Writer) error {
	w := &watchers{changed: make(chan struct{}, 1)}
	if err := json.Unmarshal([]byte(arg), &w.task); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	tlsConfig, err := w.task.Files.clientTLS()
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	w.creds = credentials.NewTLS(tlsConfig)
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		for _, c := range w.conns {
			c.Close()
		}
		w.streams.Wait()
	}()
	answers := json.NewEncoder(out)
	if err := answers.Encode(watchAnswer{}); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		err := w.do(ctx, lines.Text())
		a := w.answer()
		if err != nil {
			a.Error = err.Error()
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
	return lines.Err()
}

// do carries out a command.
func (w *watchers) do(ctx context.Context, line string) error {
	verb, number, _ := strings.Cut(line, " ")
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, clientPatience)
	defer cancel()
	switch verb {
	case "open":
		return w.open(ctx, n)
	case "expect":
		return w.wait(ctx, &w.came, int64(n))
	case "reopened":
		return w.wait(ctx, &w.opened, int64(n))
	case "list":
		return w.list(ctx, n)
	}
	return errors.New("no such command")
}

// wait returns when a count has reached n, which is taken from it.
func (w *watchers) wait(ctx context.Context, count *atomic.Int64, n int64) error {
	for count.Load() < n {
		select {
		case <-w.changed:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d came: %w", count.Load(), n, errors.Join(w.broken(), ctx.Err()))
		}
		if err := w.broken(); err != nil {
			return err
		}
	}
	count.Add(-n)
	return nil
}

func (w *watchers) broken() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// answer tells what came since the last one.
func (w *watchers) answer() watchAnswer {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := watchAnswer{Events: int64(len(w.lag)), Bytes: w.bytes.Swap(0), At: w.at}
	if p50, err := stats.Quantile(w.lag, 0.5); err == nil {
		p99, _ := stats.Quantile(w.lag, 0.99)
		a.P50, a.P99 = time.Duration(p50*1e9), time.Duration(p99*1e9)
	}
	w.lag = w.lag[:0]
	return a
}

// connect returns a connection that is made when it is needed.
func (w *watchers) connect() (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+w.task.Address, grpc.WithTransportCredentials(w.creds),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", address)
			if err != nil {
				return nil, err
			}
			return countedConn{c, &w.bytes}, nil
		}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnectBackoff, MinConnectTimeout: clientPatience}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newGlanceCodec()), grpc.MaxCallRecvMsgSize(1<<30), grpc.WaitForReady(true)))
}

// open adds watches until there are n.
func (w *watchers) open(ctx context.Context, n int) error {
	var g errgroup.Group
	g.SetLimit(openAtOnce)
	missing := n - len(w.conns)
	for range missing {
		c, err := w.connect()
		if err != nil {
			return err
		}
		w.conns = append(w.conns, c)
		g.Go(func() error { return w.start(ctx, c) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return w.wait(ctx, &w.opened, int64(missing))
}

// start returns when a watch stands, which goes on until the connection is closed, over restarts of the
// server.
func (w *watchers) start(ctx context.Context, c *grpc.ClientConn) error {
	stream, revision, err := w.create(ctx, c, 0)
	if err != nil {
		return err
	}
	w.streams.Go(func() {
		for {
			revision = w.follow(stream, revision)
			if stream, revision, err = w.create(context.Background(), c, revision); err != nil {
				w.fail(err)
				return
			}
		}
	})
	return nil
}

// create begins a watch from a revision, or from now on where that is 0, and returns the one to begin
// at next time.
func (w *watchers) create(ctx context.Context, c *grpc.ClientConn, from int64) (pb.Watch_WatchClient, int64, error) {
	for {
		// The stream outlives the command that opened it.
		stream, err := pb.NewWatchClient(c).Watch(context.Background())
		if err != nil {
			return nil, 0, err // the connection is closed
		}
		err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
			Key: []byte(w.task.Prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(w.task.Prefix)), StartRevision: from,
		}}})
		var m glance
		if err == nil {
			err = stream.RecvMsg(&m)
		}
		switch {
		case err == nil && m.canceled:
			return nil, 0, errors.New("the watch was refused")
		case err == nil:
			w.opened.Add(1)
			w.wake()
			return stream, max(from, m.revision+1), nil
		case ctx.Err() != nil:
			return nil, 0, errors.Join(err, ctx.Err())
		}
		time.Sleep(reconnectBackoff.BaseDelay) // the server is there, and not ready yet
	}
}

// follow takes events until the stream ends, and returns the revision to go on from.
func (w *watchers) follow(stream pb.Watch_WatchClient, revision int64) int64 {
	for {
		var m glance
		if err := stream.RecvMsg(&m); err != nil {
			return revision
		}
		if m.canceled {
			w.fail(fmt.Errorf("the watch was canceled at %d", revision))
			return revision
		}
		now := time.Now()
		w.mu.Lock()
		for _, sent := range m.sent {
			w.lag = append(w.lag, now.Sub(sent).Seconds())
		}
		w.at = now
		w.mu.Unlock()
		revision = max(revision, m.revision+1)
		if len(m.sent) > 0 {
			w.came.Add(int64(len(m.sent)))
			w.wake()
		}
	}
}

func (w *watchers) fail(err error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = err
	}
	w.mu.Unlock()
	w.wake()
}

// wake has whoever waits look again.
func (w *watchers) wake() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// list has n clients connect and read the prefix at once.
func (w *watchers) list(ctx context.Context, n int) error {
	var g errgroup.Group
	for range n {
		g.Go(func() error {
			c, err := w.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			for {
				err := c.Invoke(ctx, pb.KV_Range_FullMethodName, &pb.RangeRequest{
					Key: []byte(w.task.Prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(w.task.Prefix)),
				}, &glance{unread: true})
				if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
					return err
				}
				time.Sleep(reconnectBackoff.BaseDelay) // the server is there, and not ready yet
			}
		})
	}
	err := g.Wait()
	w.mu.Lock()
	w.at = time.Now()
	w.mu.Unlock()
	return err
}

// countedConn counts what it reads.
type countedConn struct {
	net.Conn
	bytes *atomic.Int64
}

func (c countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.bytes.Add(int64(n))
	return n, err
}
