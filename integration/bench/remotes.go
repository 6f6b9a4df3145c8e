// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// remotesTask is what the process of simulated clusters is told.
type remotesTask struct {
	Etcd     string   `json:"etcd"` // address:port
	Clusters []string `json:"clusters"`
}

// remotesReady is its first line: where each cluster's store seems to be.
type remotesReady struct {
	Addresses []string `json:"addresses"`
}

// remotePrefix is where the keys of a simulated cluster stand in the one etcd.
func remotePrefix(cluster string) string { return "sim/" + cluster + "/" }

// remote looks like the etcd of one cluster: what is asked for is read below its prefix, and what is
// answered has lost it. Revisions are those of the etcd.
type remote struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
	prefix string
	kv     pb.KVClient
	watch  pb.WatchClient
	asking *sync.WaitGroup // what goes on beside handlers
}

// runRemotes is the process of many clusters, simulated by prefix in one etcd. It ends with its input.
func runRemotes(ctx context.Context, arg string, in io.Reader, out io.Writer) (err error) {
	var task remotesTask
	if err := json.Unmarshal([]byte(arg), &task); err != nil {
		return fmt.Errorf("remotes: %w", err)
	}
	conn, err := grpc.NewClient("passthrough:///"+task.Etcd, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		return fmt.Errorf("remotes: %w", err)
	}
	defer conn.Close()
	var g errgroup.Group
	var asking sync.WaitGroup
	var servers []*grpc.Server
	defer func() {
		for _, s := range servers {
			s.Stop()
		}
		asking.Wait()
		if werr := g.Wait(); err == nil {
			err = werr
		}
	}()
	var ready remotesReady
	for _, cluster := range task.Clusters {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("remotes: %w", err)
		}
		r := &remote{prefix: remotePrefix(cluster), kv: pb.NewKVClient(conn), watch: pb.NewWatchClient(conn), asking: &asking}
		s := grpc.NewServer()
		pb.RegisterKVServer(s, r)
		pb.RegisterWatchServer(s, r)
		servers = append(servers, s)
		g.Go(func() error { return s.Serve(l) })
		ready.Addresses = append(ready.Addresses, l.Addr().String())
	}
	if err := json.NewEncoder(out).Encode(ready); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

// Range reads.
func (r *remote) Range(ctx context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	req.Key, req.RangeEnd = r.below(req.Key, req.RangeEnd)
	resp, err := r.kv.Range(ctx, req)
	if err != nil {
		return nil, err
	}
	for _, kv := range resp.Kvs {
		r.strip(kv)
	}
	return resp, nil
}

// Watch passes messages on in both directions.
func (r *remote) Watch(down pb.Watch_WatchServer) error {
	ctx, cancel := context.WithCancel(down.Context())
	defer cancel()
	up, err := r.watch.Watch(ctx)
	if err != nil {
		return err
	}
	r.asking.Go(func() {
		defer cancel() // the client is gone, or the call is over
		for {
			req, err := down.Recv()
			if err != nil {
				return
			}
			if c := req.GetCreateRequest(); c != nil {
				c.Key, c.RangeEnd = r.below(c.Key, c.RangeEnd)
			}
			if up.Send(req) != nil {
				return
			}
		}
	})
	for {
		resp, err := up.Recv()
		if err != nil {
			return err
		}
		for _, ev := range resp.Events {
			r.strip(ev.Kv)
			r.strip(ev.PrevKv)
		}
		if err := down.Send(resp); err != nil {
			return err
		}
	}
}

// below is a range as it stands below the prefix.
func (r *remote) below(key, end []byte) (from, to []byte) {
	from = append([]byte(r.prefix), key...)
	switch {
	case len(end) == 0:
		return from, nil
	case string(end) == "\x00":
		return from, []byte(clientv3.GetPrefixRangeEnd(r.prefix))
	}
	return from, append([]byte(r.prefix), end...)
}

func (r *remote) strip(kv *mvccpb.KeyValue) {
	if kv != nil {
		kv.Key = kv.Key[len(r.prefix):]
	}
}
