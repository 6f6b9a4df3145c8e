// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/datapath"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// The service whose backend changes.
const (
	reachNamespace = "default"
	reachName      = "reach"
	reachPort      = "reach"
)

// reachTimeout is how long a change may take before the run is given up.
const reachTimeout = 30 * time.Second

// runReach is the process that changes and looks. It watches through a client of its own, so that
// event and put do not share a connection.
func runReach(ctx context.Context, arg string, out io.Writer) error {
	var task reachTask
	if err := json.Unmarshal([]byte(arg), &task); err != nil {
		return fmt.Errorf("reach: %w", err)
	}
	cfg, err := kvstore.ReadConfigFile(task.Etcd)
	if err != nil {
		return err
	}
	var clients [2]*kvstore.Client
	for i := range clients {
		if clients[i], err = kvstore.New(cfg, slog.New(slog.DiscardHandler)); err != nil {
			return err
		}
		defer clients[i].Close()
	}
	r := reacher{task: task, writer: clients[0]}
	for _, node := range task.Nodes {
		maps, err := datapath.OpenMaps(task.BPFFS, node)
		if err != nil {
			return err
		}
		defer maps.Close()
		r.maps = append(r.maps, maps)
	}
	codec := schema.Services(schema.Scope{Cluster: task.Cluster, ClusterID: task.ClusterID})
	r.encode = func(backend netip.Addr) ([]byte, error) {
		key := schema.ServiceKey{Cluster: task.Cluster, Namespace: reachNamespace, Name: reachName}
		port := map[string]schema.L4{reachPort: {Protocol: 6, Port: task.Frontend.Port()}}
		return codec.Encode(key, schema.ClusterService{
			Cluster: task.Cluster, ClusterID: task.ClusterID, Namespace: reachNamespace, Name: reachName,
			Frontends: map[netip.Addr]map[string]schema.L4{task.Frontend.Addr(): port},
			Backends:  map[netip.Addr]map[string]schema.L4{backend: port},
			Shared:    true, IncludeExternal: true,
		})
	}
	r.key = codec.Prefix + reachNamespace + "/" + reachName
	r.events = clients[1].Etcd().Watch(ctx, r.key)
	times, err := r.run(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(times)
}

// reacher changes one row and sees where it arrives.
type reacher struct {
	task   reachTask
	key    string
	encode func(netip.Addr) ([]byte, error)
	writer *kvstore.Client
	events clientv3.WatchChan
	maps   []*datapath.Maps
}

func (r *reacher) run(ctx context.Context) (times reachTimes, err error) {
	defer func() {
		_, err2 := r.writer.Delete(context.WithoutCancel(ctx), r.key)
		err = errors.Join(err, err2)
	}()
	for i := range r.task.Changes + 1 {
		watch, reached, err := r.change(ctx, r.task.Backends[i%2])
		if err != nil {
			return times, fmt.Errorf("change %d: %w", i, err)
		}
		// The first makes the service; all others change it.
		if i > 0 {
			times.Watch = append(times.Watch, float64(watch))
			times.Maps = append(times.Maps, float64(reached))
		}
		// The pace of the load, not in step with anything periodic.
		time.Sleep(time.Duration(10+rand.IntN(20)) * time.Millisecond)
	}
	return times, nil
}

// change gives the service another backend and returns how long the bare watch and the last map
// took to say so.
func (r *reacher) change(ctx context.Context, backend netip.Addr) (watch, reached time.Duration, err error) {
	value, err := r.encode(backend)
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	start := time.Now()
	event := make(chan time.Duration, 1)
	put := make(chan error, 1)
	go func() {
		_, err := r.writer.Put(ctx, r.key, value, 0)
		put <- err
	}()
	go func() {
		defer close(event)
		for {
			select {
			case res := <-r.events:
				for _, e := range res.Events {
					if string(e.Kv.Value) == string(value) {
						event <- time.Since(start)
						return
					}
				}
				if res.Err() != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	reached, mapErr := r.wait(ctx, start, netip.AddrPortFrom(backend, r.task.Frontend.Port()))
	watch, ok := <-event
	if !ok {
		mapErr = errors.Join(mapErr, errors.New("the bare watch saw nothing"))
	}
	return watch, reached, errors.Join(<-put, mapErr)
}

// wait looks into the maps until all have the backend. It sleeps between looks: a busy loop would
// take one of few processors from those who are to write.
func (r *reacher) wait(ctx context.Context, start time.Time, backend netip.AddrPort) (time.Duration, error) {
	for _, m := range r.maps {
		for !r.has(m, backend) {
			if err := ctx.Err(); err != nil {
				return 0, fmt.Errorf("backend %s is not in every map: %w", backend, err)
			}
			time.Sleep(20 * time.Microsecond)
		}
	}
	return time.Since(start), nil
}

// has tells whether a node's maps send the service's clients to the backend alone.
func (r *reacher) has(m *datapath.Maps, backend netip.AddrPort) bool {
	for s, err := range m.Services() {
		if err != nil {
			return false
		}
		if s.Frontend == r.task.Frontend && s.Protocol == 6 {
			return len(s.Backends) == 1 && s.Backends[0] == backend
		}
	}
	return false
}
