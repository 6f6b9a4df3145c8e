// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// heldRevision is the revision of rows that are held. The first put of an etcd has 2, so that no row of
// it is taken for one of these.
const heldRevision = 1

// held is what a generation serves of the store before it: rows that the new store lacks and that nobody
// deleted. Those of an owner go when it has said under the new epoch that all its rows are there. Only
// the goroutine that follows the etcd touches it.
type held struct {
	epoch  string
	base   int64                                  // the list that lacked the rows was of this revision
	owners map[string]map[string]*mvccpb.KeyValue // by owner and key
	rows   map[string]string                      // the owner of each key
	nodes  map[string]bool                        // of the lost store; true: it has spoken
	due    []leaving                              // what is to go
	since  time.Time
	ready  time.Time     // nothing goes before: who follows this store has to have listed it
	empty  time.Time     // since when nothing is held; zero: something is
	waited time.Duration // while the etcd answered
	went   int64         // the last revision at which any went
}

// leaving is that the rows of an owner go, all if it has no name, from a revision on.
type leaving struct {
	revision int64
	owner    string
}

// heldOf is the newest view of a store, as far as it is worth to be held: what hangs on a process that is
// there or not, locks and elections, is not.
func heldOf(s *Store, cluster string) *held {
	h := &held{
		owners: map[string]map[string]*mvccpb.KeyValue{}, rows: map[string]string{}, nodes: map[string]bool{},
	}
	nodes := schema.NodesPrefix + cluster + "/"
	addresses := map[netip.Addr]string{}
	s.each(nodes, func(kv *mvccpb.KeyValue) {
		name := strings.TrimPrefix(string(kv.Key), nodes)
		if name == "" {
			return // a key that names nobody, for whom nobody would speak
		}
		h.nodes[name] = false
		for _, a := range addressesOf(kv.Value) {
			addresses[a] = name
		}
	})
	s.each("", func(kv *mvccpb.KeyValue) {
		key := string(kv.Key)
		for _, prefix := range []string{schema.HeartbeatReadPrefix, schema.InitLockPrefix, schema.MirrorElectionsPrefix, schema.IdentityLocksPrefix} {
			if strings.HasPrefix(key, prefix) {
				return
			}
		}
		h.hold(ownerOf(cluster, kv, addresses), &mvccpb.KeyValue{
			Key: kv.Key, Value: kv.Value, CreateRevision: heldRevision, ModRevision: heldRevision, Version: 1,
		})
	})
	return h
}

// each calls fn for the newest of each key with a prefix; "": of all.
func (s *Store) each(prefix string, fn func(*mvccpb.KeyValue)) {
	end := ""
	if prefix != "" {
		end = clientv3.GetPrefixRangeEnd(prefix)
	}
	v := s.view.Load()
	v.keys.ascend(prefix, end, func(it *item) bool {
		if at := it.at(v.rev); at != nil {
			fn(at.kv)
		}
		return true
	})
}

// count is how many keys have a prefix.
func (s *Store) count(prefix string) (n int) {
	s.each(prefix, func(*mvccpb.KeyValue) { n++ })
	return n
}

// ownerOf returns whose word tells that a row is gone: the name of a node, the operator's, or
// OwnerEverybody where all nodes are asked.
func ownerOf(cluster string, kv *mvccpb.KeyValue, nodes map[netip.Addr]string) string {
	key := string(kv.Key)
	if name, ok := strings.CutPrefix(key, schema.NodesPrefix+cluster+"/"); ok && name != "" {
		return name
	}
	var host netip.Addr
	switch {
	case strings.HasPrefix(key, schema.IPsPrefix):
		host = hostOf(kv.Value)
	case strings.HasPrefix(key, schema.IdentityValuesPrefix):
		// A reference ends in the address of the node that has it.
		host, _ = netip.ParseAddr(key[strings.LastIndexByte(key, '/')+1:])
	case strings.HasPrefix(key, schema.ServicesPrefix+cluster+"/"), strings.HasPrefix(key, schema.SyncedPrefix+cluster+"/"),
		key == schema.ClusterConfigPrefix+cluster:
		return kvstore.OwnerOperator
	}
	if name, ok := nodes[host]; ok {
		return name
	}
	return kvstore.OwnerEverybody
}

// addressesOf are those that a node's row names, of any version and however odd otherwise: it was served
// as it is.
func addressesOf(value []byte) (out []netip.Addr) {
	var row struct{ IPAddresses []struct{ IP string } }
	if json.Unmarshal(value, &row) != nil {
		return nil
	}
	for _, a := range row.IPAddresses {
		if ip, err := netip.ParseAddr(a.IP); err == nil {
			out = append(out, ip)
		}
	}
	return out
}

// hostOf is the node's address in the row of an endpoint's.
func hostOf(value []byte) netip.Addr {
	var row struct{ HostIP string }
	if json.Unmarshal(value, &row) != nil {
		return netip.Addr{}
	}
	host, _ := netip.ParseAddr(row.HostIP)
	return host
}

func (h *held) hold(owner string, kv *mvccpb.KeyValue) {
	if h.owners[owner] == nil {
		h.owners[owner] = map[string]*mvccpb.KeyValue{}
	}
	h.owners[owner][string(kv.Key)], h.rows[string(kv.Key)] = kv, owner
}

// there takes note that a key stands in the store, or stood.
func (h *held) there(key []byte) {
	if owner, ok := h.rows[string(key)]; ok {
		delete(h.rows, string(key))
		if delete(h.owners[owner], string(key)); len(h.owners[owner]) == 0 {
			delete(h.owners, owner)
		}
	}
}

// all are the rows that are held.
func (h *held) all() (kvs []*mvccpb.KeyValue) {
	for _, rows := range h.owners {
		kvs = append(kvs, slices.Collect(maps.Values(rows))...)
	}
	return kvs
}

// renewed begins anew to wait for words: those of an epoch that were said after the store was listed at
// a revision.
func (h *held) renewed(epoch string, revision int64) {
	h.epoch, h.base, h.due = epoch, revision, nil
	for name := range h.nodes {
		h.nodes[name] = false
	}
}

// says takes over an owners' row. What it says is true from its own revision on. One that was there
// before the list says nothing of what the list lacks, but for that of a node that left for good.
func (h *held) says(kv *mvccpb.KeyValue) {
	name := strings.TrimPrefix(string(kv.Key), schema.OwnersPrefix)
	if name == "" || name == kvstore.OwnerEverybody {
		return // no node speaks for all
	}
	o, err := schema.Owners().Decode(name, kv.Value)
	if err != nil || !o.Complete || o.Epoch != h.epoch || kv.ModRevision <= h.base && !o.Left {
		return
	}
	h.leave(kv.ModRevision, name)
	if spoke, known := h.nodes[name]; known && !spoke {
		h.nodes[name] = true
		if h.silent() == 0 {
			h.leave(kv.ModRevision, kvstore.OwnerEverybody)
		}
	}
}

// decided takes over a decision: what is in the store is the truth. It is about the epoch, whenever in it
// somebody made it.
func (h *held) decided(kv *mvccpb.KeyValue) {
	d, err := schema.DecodeDecision(kv.Value)
	if err == nil && d.Decision == schema.DecisionAdopt && d.Epoch == h.epoch {
		h.leave(kv.ModRevision, "")
	}
}

// leave lets the rows of an owner go from a revision on.
func (h *held) leave(revision int64, owner string) {
	if owner != "" && len(h.owners[owner]) == 0 {
		return
	}
	h.due = append(h.due, leaving{revision, owner})
	slices.SortStableFunc(h.due, func(a, b leaving) int { return int(a.revision - b.revision) })
}

// silent is how many nodes have not spoken.
func (h *held) silent() (n int) {
	for _, spoke := range h.nodes {
		if !spoke {
			n++
		}
	}
	return n
}

// wait lets time pass in which the etcd answered. When the limit is over everything goes, unless so many
// nodes are silent that it is the path to the store that is lost.
func (h *held) wait(d, limit time.Duration, now time.Time) {
	h.waited += d
	if over := len(h.due) > 0 && h.due[0].revision == 0; h.waited >= limit && !kvstore.TooMany(h.silent(), len(h.nodes)) && !over {
		h.leave(0, "")
	}
	switch {
	case len(h.rows) > 0:
		h.empty = time.Time{}
	case h.empty.IsZero():
		h.empty = now
	}
}

// next takes what goes next of what is due at a revision: the keys, and from which revision on they may.
func (h *held) next(through int64, now time.Time) (revision int64, keys []string) {
	for !now.Before(h.ready) && len(h.due) > 0 && h.due[0].revision <= through {
		d := h.due[0]
		h.due = h.due[1:]
		if d.owner == "" {
			keys = slices.Collect(maps.Keys(h.rows))
		} else {
			keys = slices.Collect(maps.Keys(h.owners[d.owner]))
		}
		if len(keys) > 0 {
			slices.Sort(keys)
			for _, key := range keys {
				h.there([]byte(key))
			}
			return d.revision, keys
		}
	}
	return 0, nil
}
