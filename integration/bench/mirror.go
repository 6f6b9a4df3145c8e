// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/datapath"
	"github.com/weft-net/weft/internal/netns"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
	"github.com/weft-net/weft/state"
)

// mirrorSource is the writer of a mirror's rows.
const mirrorSource state.Source = "etcd"

// scope is whose rows the benchmarks write.
func scope() schema.Scope { return schema.Scope{Cluster: "bench", ClusterID: 1} }

// mirror is what an agent has between a store and the kernel, as far as ip rows go: a guarded watch,
// the tables, and a datapath in a namespace of its own.
type mirror struct {
	watch    *kvstore.Watch[schema.IPKey, schema.IP]
	datapath *datapath.Datapath
	maps     *datapath.Maps
	ipcache  *ebpf.Map // one of them
	cancel   context.CancelFunc
	group    *errgroup.Group
}

// newMirror starts a mirror of what client reads, until w is closed.
func newMirror(ctx context.Context, w *World, client *kvstore.Client) (*mirror, error) {
	cfg, err := mirrorConfig(w)
	if err != nil {
		return nil, err
	}
	tables := datapath.Tables{
		Endpoints: state.NewTable[uint16]("endpoints", state.Equal[datapath.LocalEndpoint]),
		IPs:       state.NewTable[schema.IPKey]("ips", state.Equal[schema.IP]),
		Nodes:     state.NewTable[schema.NodeKey]("nodes", schema.Node.Equal),
		Clusters:  state.NewTable[string]("clusters", func(a, b datapath.Cluster) bool { return false }),
		Frontends: state.NewTable[service.Frontend]("frontends", service.Service.Equal),
	}
	tables.Endpoints.MarkSynced(mirrorSource)
	tables.Nodes.MarkSynced(mirrorSource)
	tables.Clusters.MarkSynced(mirrorSource)
	tables.Frontends.MarkSynced(mirrorSource)
	quiet := slog.New(slog.DiscardHandler)
	m := &mirror{}
	if m.datapath, err = datapath.New(cfg, tables, quiet, nil); err != nil {
		return nil, err
	}
	guard := kvstore.NewGuard(client, kvstore.GuardConfig{Cluster: cfg.Cluster, Owners: true}, quiet)
	m.watch = kvstore.NewWatch(client, schema.IPs(scope()), tables.IPs, kvstore.WatchConfig{Source: mirrorSource, Guard: guard}, quiet)
	ctx, m.cancel = context.WithCancel(ctx)
	m.group, ctx = errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{m.datapath.Run, guard.Run, m.watch.Run} {
		m.group.Go(func() error { return run(ctx) })
	}
	w.onClose(m.close)
	select {
	case <-m.datapath.Ready():
	case <-ctx.Done():
		return nil, errors.Join(errors.New("the datapath did not start"), m.group.Wait())
	}
	if m.maps, err = datapath.OpenMaps(cfg.BPFRoot, cfg.NodeName); err != nil {
		return nil, err
	}
	pins, err := filepath.Glob(filepath.Join(cfg.BPFRoot, "*", cfg.NodeName, "maps*", "ipcache"))
	if err != nil || len(pins) != 1 {
		return nil, fmt.Errorf("pin of the map: %d found, %w", len(pins), err)
	}
	m.ipcache, err = ebpf.LoadPinnedMap(pins[0], &ebpf.LoadPinOptions{ReadOnly: true})
	return m, err
}

// mirrorConfig is that of a node with an underlay of its own that leads nowhere.
func mirrorConfig(w *World) (cfg datapath.Config, err error) {
	node, err := w.namespace("node")
	if err != nil {
		return cfg, err
	}
	far, err := w.namespace("far")
	if err != nil {
		return cfg, err
	}
	if err := netns.Veth(node, wireDev, far, wireDev, wireMTU); err != nil {
		return cfg, err
	}
	self := netip.MustParseAddr("192.0.2.1")
	if err := node.AddAddr(wireDev, netip.PrefixFrom(self, 24)); err != nil {
		return cfg, err
	}
	dir, err := os.MkdirTemp("", "weft-bench-")
	if err != nil {
		return cfg, err
	}
	w.onClose(func() error { return os.RemoveAll(dir) })
	root := filepath.Join(dir, "bpf")
	if err := os.Mkdir(root, 0o700); err != nil {
		return cfg, err
	}
	if err := unix.Mount("bpf", root, "bpf", 0, ""); err != nil {
		return cfg, fmt.Errorf("mount %s: %w", root, err)
	}
	w.onClose(func() error { return unix.Unmount(root, unix.MNT_DETACH) })
	cfg = datapath.DefaultConfig()
	cfg.Cluster, cfg.ClusterID, cfg.NodeName = scope().Cluster, scope().ClusterID, "bench"
	cfg.NetNS, cfg.BPFRoot, cfg.NodeIPs = node.Path(), root, []netip.Addr{self}
	cfg.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.255.0.0/24")}
	return cfg, nil
}

func (m *mirror) close() error {
	m.cancel()
	if m.maps != nil {
		m.maps.Close()
	}
	if m.ipcache != nil {
		m.ipcache.Close()
	}
	if err := m.group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("mirror: %w", err)
	}
	return nil
}

// identity is what the kernel knows of an address, 0 for nothing.
func (m *mirror) identity(p netip.Prefix) uint32 {
	var row bpf.IPCacheEntry
	if m.ipcache.Lookup(addressKey(p.Addr()), &row) != nil {
		return 0
	}
	return row.Identity
}

// identities are what the kernel knows of the addresses of ip rows.
func (m *mirror) identities() (map[netip.Prefix]uint32, error) {
	have := map[netip.Prefix]uint32{}
	for r, err := range m.maps.IPCache() {
		if err != nil {
			return nil, err
		}
		if isEndpoint(r.Prefix) {
			have[r.Prefix] = r.Identity
		}
	}
	return have, nil
}

// written counts the rows that were written into the map since a time.
func (m *mirror) written(since time.Time) int {
	n := 0
	for r := range m.datapath.IPCache().All() {
		if o, ok := m.datapath.IPCacheOutcome(r.Key); ok && o.At.After(since) {
			n++
		}
	}
	return n
}
