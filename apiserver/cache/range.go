// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"cmp"
	"slices"
	"sort"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Snapshot is the store at its newest revision. It may be read for as long as the history reaches
// back to it.
type Snapshot struct {
	s *Store
	v *view
}

// Snapshot returns the store as it is.
func (s *Store) Snapshot() Snapshot { return Snapshot{s, s.view.Load()} }

// Revision is that of the snapshot.
func (sn Snapshot) Revision() int64 { return sn.v.rev }

// Bounds turns the end of a range of the protocol into one of this package, exclusive: nothing is
// one key, a zero byte is the end of all keys, which is "" here.
func Bounds(key, end []byte) (from, to string) {
	switch {
	case len(end) == 0:
		return string(key), string(key) + "\x00"
	case len(end) == 1 && end[0] == 0:
		return string(key), ""
	}
	return string(key), string(end)
}

// Range reads as etcd does: count ignores limit and filters, sorting and filters come before the
// limit, and the keys of a read without values have no lease unless they are sorted by value. The
// response's header has only the snapshot's revision. What it points at must not be written. The
// error is ErrFuture, a *CompactedError or a *FillingError.
func (sn Snapshot) Range(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	at := r.Revision
	if at <= 0 {
		at = sn.v.rev
	}
	if at > sn.v.rev {
		return nil, ErrFuture
	}
	if err := sn.reaches(at); err != nil {
		return nil, err
	}
	from, to := Bounds(r.Key, r.RangeEnd)
	resp := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: sn.v.rev}}
	kvs, count := sn.collect(from, to, at, r)
	resp.Count = int64(count)
	if !r.CountOnly {
		kvs = filter(kvs, r)
		order(kvs, r)
		if r.Limit > 0 && int64(len(kvs)) > r.Limit {
			kvs, resp.More = kvs[:r.Limit], true
		}
		if r.KeysOnly {
			withoutValues(kvs, r.SortTarget == pb.RangeRequest_VALUE)
		}
		resp.Kvs = kvs
	}
	// A cut that was met is known by now.
	if err := sn.reaches(at); err != nil {
		return nil, err
	}
	return resp, nil
}

// reaches returns nil if a snapshot can tell what was at a revision.
func (sn Snapshot) reaches(revision int64) error {
	if revision >= sn.s.floor.Load() && revision >= sn.v.floor {
		return nil
	}
	sn.s.mu.RLock()
	defer sn.s.mu.RUnlock()
	floor := sn.s.floor.Load()
	switch {
	case sn.s.fill != nil && revision >= sn.s.fill.from:
		return &FillingError{sn.s.fill.done}
	case revision >= floor:
		// That history came after the snapshot was taken, which lacks what was deleted since: the next
		// one has it.
		over := make(chan struct{})
		close(over)
		return &FillingError{over}
	}
	return &CompactedError{floor}
}

// collect returns the keys of a range at a revision, as many as the request can need, and the number
// of all. The slice is the caller's.
func (sn Snapshot) collect(from, to string, at int64, r *pb.RangeRequest) (kvs []*mvccpb.KeyValue, count int) {
	// A limit ends the walk where nothing is sorted or filtered behind it.
	limit := 0
	if plain(r) && r.Limit > 0 {
		limit = int(min(r.Limit, 1<<40)) + 1
	}
	// While no key came or went since, the number of keys follows from the trees.
	known := at >= sn.v.shape
	if known {
		count = sn.v.keys.count(from, to) - sn.v.gone.count(from, to)
		if r.CountOnly {
			return nil, count
		}
		size := count
		if limit > 0 {
			size = min(size, limit)
		}
		kvs = make([]*mvccpb.KeyValue, 0, size)
	}
	seen := 0
	sn.v.keys.ascend(from, to, func(it *item) bool {
		v := it.at(at)
		if v == nil {
			return true
		}
		seen++
		if !r.CountOnly && (limit == 0 || len(kvs) < limit) {
			kvs = append(kvs, v.kv)
		}
		return !known || limit == 0 || len(kvs) < limit
	})
	if !known {
		count = seen
	}
	return kvs, count
}

// plain reports whether the keys are wanted in their order, all of them.
func plain(r *pb.RangeRequest) bool {
	return (r.SortOrder == pb.RangeRequest_NONE ||
		r.SortTarget == pb.RangeRequest_KEY && r.SortOrder == pb.RangeRequest_ASCEND) &&
		r.MinModRevision == 0 && r.MaxModRevision == 0 && r.MinCreateRevision == 0 && r.MaxCreateRevision == 0
}

func filter(kvs []*mvccpb.KeyValue, r *pb.RangeRequest) []*mvccpb.KeyValue {
	if plain(r) {
		return kvs
	}
	return slices.DeleteFunc(kvs, func(kv *mvccpb.KeyValue) bool {
		return r.MaxModRevision != 0 && kv.ModRevision > r.MaxModRevision ||
			r.MinModRevision != 0 && kv.ModRevision < r.MinModRevision ||
			r.MaxCreateRevision != 0 && kv.CreateRevision > r.MaxCreateRevision ||
			r.MinCreateRevision != 0 && kv.CreateRevision < r.MinCreateRevision
	})
}

// order sorts as etcd does, with the same algorithm: also the order of keys that are equal in what is
// sorted by is the same.
func order(kvs []*mvccpb.KeyValue, r *pb.RangeRequest) {
	descend := r.SortOrder == pb.RangeRequest_DESCEND
	if r.SortTarget == pb.RangeRequest_KEY && !descend {
		return
	}
	by := func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) }
	switch r.SortTarget {
	case pb.RangeRequest_VERSION:
		by = func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.Version, b.Version) }
	case pb.RangeRequest_CREATE:
		by = func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) }
	case pb.RangeRequest_MOD:
		by = func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.ModRevision, b.ModRevision) }
	case pb.RangeRequest_VALUE:
		by = func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Value, b.Value) }
	}
	var s sort.Interface = sorted{kvs, by}
	if descend {
		s = sort.Reverse(s)
	}
	sort.Sort(s)
}

type sorted struct {
	kvs []*mvccpb.KeyValue
	by  func(a, b *mvccpb.KeyValue) int
}

func (s sorted) Len() int           { return len(s.kvs) }
func (s sorted) Less(i, j int) bool { return s.by(s.kvs[i], s.kvs[j]) < 0 }
func (s sorted) Swap(i, j int)      { s.kvs[i], s.kvs[j] = s.kvs[j], s.kvs[i] }

// withoutValues replaces keys by ones without value.
func withoutValues(kvs []*mvccpb.KeyValue, lease bool) {
	for i, kv := range kvs {
		kvs[i] = &mvccpb.KeyValue{
			Key: kv.Key, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Version: kv.Version,
		}
		if lease {
			kvs[i].Lease = kv.Lease
		}
	}
}
