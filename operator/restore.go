// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// follow decides what absent rows mean in a store that is still the one it was.
func (k *keeper) follow(ctx context.Context, v view, c kvstore.Continuity) error {
	m := &k.mem
	var absent []string
	for key := range m.Rows {
		if _, there := v.rows[key]; !there && !m.Held[key] {
			absent = append(absent, key)
		}
	}
	together := map[string]bool{}
	if c == kvstore.ContinuityProven && k.severalOwners(absent) {
		var err error
		if together, err = k.deletedTogether(ctx, m.Revision+1, absent); err != nil {
			return err
		}
	}
	for _, key := range absent {
		if !together[key] {
			delete(m.Rows, key)
			continue
		}
		if m.Held == nil {
			m.Held = map[string]bool{}
		}
		m.Held[key] = true
	}
	if len(together) > 0 {
		k.log.Warn("one revision deleted rows of several services, which nobody does but by hand; putting them back", "rows", len(together))
		k.beginHold(v, holdBrief)
	}
	return nil
}

// owner is whose row it is: definition, addresses and export of one service are one.
func (k *keeper) owner(key string) string {
	if tail, ok := strings.CutPrefix(key, schema.DefinitionsPrefix); ok {
		return tail
	}
	if tail, ok := strings.CutPrefix(key, schema.ServicesPrefix+k.cfg.Cluster+"/"); ok {
		return tail
	}
	if vip, ok := vipOf(key, k.mem.Rows[key]); ok {
		return vip.Namespace + "/" + vip.Name
	}
	return key
}

func vipOf(key string, value []byte) (schema.VIP, bool) {
	tail, ok := strings.CutPrefix(key, schema.VIPsPrefix)
	if !ok {
		return schema.VIP{}, false
	}
	addr, err := netip.ParseAddr(tail)
	if err != nil {
		return schema.VIP{}, false
	}
	vip, err := schema.VIPs().Decode(addr, value)
	return vip, err == nil
}

func (k *keeper) severalOwners(keys []string) bool {
	for _, key := range keys {
		if k.owner(key) != k.owner(keys[0]) {
			return true
		}
	}
	return false
}

// deletedTogether reads the history from a revision on, and returns those of the absent keys whose
// deletion was of one revision with that of another owner. A history that is compacted tells
// nothing: then nothing was.
func (k *keeper) deletedTogether(ctx context.Context, from int64, absent []string) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	at := map[int64][]string{}
	for _, prefix := range append(k.ranges(), schema.ClusterConfigPrefix+k.cfg.Cluster) {
		missing := map[string]bool{}
		for _, key := range absent {
			if strings.HasPrefix(key, prefix) {
				missing[key] = true
			}
		}
		if len(missing) == 0 {
			continue
		}
		wctx, stop := context.WithCancel(ctx)
		last := map[string]int64{}
		for res := range k.client.Etcd().Watch(wctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(from)) {
			if res.CompactRevision != 0 {
				stop()
				return nil, nil
			}
			if err := res.Err(); err != nil {
				stop()
				return nil, fmt.Errorf("read the history: %w", err)
			}
			for _, ev := range res.Events {
				if key := string(ev.Kv.Key); missing[key] && ev.Type == clientv3.EventTypeDelete {
					last[key] = ev.Kv.ModRevision
				}
			}
			if len(last) == len(missing) {
				break
			}
		}
		stop()
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read the history: %w", err)
		}
		for key, rev := range last {
			at[rev] = append(at[rev], key)
		}
	}
	together := map[string]bool{}
	for _, keys := range at {
		if k.severalOwners(keys) {
			for _, key := range keys {
				together[key] = true
			}
		}
	}
	return together, nil
}

// takeOver brings the copy up to date with what stands in the store, which wins over the copy. The
// bool says that the file is worth writing.
func (k *keeper) takeOver(ctx context.Context, v view) (dirty bool, err error) {
	m := &k.mem
	rows := make(map[string][]byte, len(v.rows))
	for key := range m.Held {
		if _, there := v.rows[key]; there {
			delete(m.Held, key)
		} else {
			rows[key] = m.Rows[key]
		}
	}
	var changed []string
	for key, mod := range v.rows {
		if old, ok := m.Rows[key]; ok && k.mods[key] == mod {
			rows[key] = old
		} else {
			changed = append(changed, key)
		}
	}
	for batch := range slices.Chunk(changed, 100) {
		ops := make([]clientv3.Op, len(batch))
		for i, key := range batch {
			ops[i] = clientv3.OpGet(key, clientv3.WithRev(v.revision))
		}
		res, err := k.client.Txn(ctx).Then(ops...).Commit()
		if err != nil {
			return false, fmt.Errorf("read changed rows: %w", err)
		}
		for i, r := range res.Responses {
			for _, kv := range r.GetResponseRange().Kvs {
				rows[batch[i]] = kv.Value
			}
		}
	}
	dirty = !k.known || len(changed) > 0 || len(rows) != len(m.Rows) || m.Epoch != string(v.epoch.Value) ||
		m.Witness.Revision != v.heartbeat.ModRevision
	m.Cluster, m.ClusterID, m.Epoch, m.Revision, m.Rows = k.cfg.Cluster, v.clusterID, string(v.epoch.Value), v.revision, rows
	m.At = time.Now()
	m.Witness = witness{schema.HeartbeatKey, v.heartbeat.ModRevision, v.heartbeat.Value}
	m.Newest = witness{}
	for key, mod := range v.rows {
		if mod > m.Newest.Revision || mod == m.Newest.Revision && key < m.Newest.Key {
			m.Newest = witness{key, mod, rows[key]}
		}
	}
	k.mods, k.known = v.rows, true
	k.metrics.copied.Set(float64(len(rows)))
	k.metrics.held.Set(float64(len(m.Held)))
	return dirty, nil
}

// write does what only the leader does: an epoch where none ever was, and what is held put back.
func (k *keeper) write(ctx context.Context, f fence, v view) error {
	if v.epoch.Key == "" {
		return k.newEpoch(ctx, f, v)
	}
	m := &k.mem
	if len(m.Held) == 0 {
		return nil
	}
	same := clientv3.Compare(clientv3.ModRevision(schema.EpochKey), "=", v.epoch.ModRevision)
	services := map[string][]string{}
	for key := range m.Held {
		services[k.owner(key)] = append(services[k.owner(key)], key)
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		keys := services[name]
		cmps, ops := []clientv3.Cmp{f.holds(), same}, []clientv3.Op(nil)
		for _, key := range keys {
			cmps = append(cmps, clientv3.Compare(clientv3.Version(key), "=", 0))
			ops = append(ops, clientv3.OpPut(key, string(m.Rows[key])))
		}
		taken := k.takenVIPs(ctx, name, v)
		if len(taken) > 0 {
			k.log.Warn("service not put back, another one has its address now", "service", name, "addresses", taken)
			k.metrics.conflicts.Inc()
			for _, key := range keys {
				delete(m.Held, key)
				delete(m.Rows, key)
			}
			continue
		}
		res, err := k.client.Txn(ctx).If(cmps...).Then(ops...).Commit()
		if err != nil {
			return fmt.Errorf("put back %s: %w", name, err)
		}
		if !res.Succeeded {
			return nil // one of them is there, or the term or the epoch ended: look again
		}
		k.metrics.restored.Add(float64(len(keys)))
		k.log.Info("service put back", "service", name, "rows", len(keys))
		k.nudge() // to say so
	}
	epoch, err := schema.DecodeEpoch(v.epoch.Value)
	if err != nil {
		return fmt.Errorf("put back: %w", err)
	}
	if _, err := k.client.Txn(ctx).If(f.holds(), same).Then(clientv3.OpPut(schema.RestoredKey, epoch.ID)).Commit(); err != nil {
		return fmt.Errorf("put back: %w", err)
	}
	return nil
}

// takenVIPs returns the addresses of a held definition that another service has in the store.
func (k *keeper) takenVIPs(_ context.Context, name string, v view) []netip.Addr {
	key := schema.DefinitionsPrefix + name
	if !k.mem.Held[key] {
		return nil
	}
	codec := schema.Definitions()
	dk, err := codec.ParseKey(name)
	if err != nil {
		return nil
	}
	d, err := codec.Decode(dk, k.mem.Rows[key])
	if err != nil {
		return nil
	}
	var taken []netip.Addr
	for _, a := range d.VIPs {
		at := schema.VIPsPrefix + a.String()
		if _, there := v.rows[at]; !there {
			continue
		}
		if vip, ok := vipOf(at, k.mem.Rows[at]); ok && vip.Namespace+"/"+vip.Name != name {
			taken = append(taken, a)
		}
	}
	return taken
}
