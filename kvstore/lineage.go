// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore/schema"
)

// Continuity says whether a store that answers is the one that answered before, with the history
// it had.
type Continuity string

const (
	// ContinuityFirst: no store answered before.
	ContinuityFirst Continuity = "first"
	// ContinuityProven: the store still has what was seen last, at the revision it had.
	ContinuityProven Continuity = "proven"
	// ContinuityUnproven: the store may be the same one; the history that would tell is compacted,
	// or nothing was ever seen under the prefix.
	ContinuityUnproven Continuity = "unproven"
	// ContinuityBroken: another cluster id, another epoch, a lower revision, or another value at a
	// revision that was seen: the store was wiped, restored or replaced.
	ContinuityBroken Continuity = "broken"
)

// lineage is what is remembered of a store to recognise it by. A cluster id alone proves nothing:
// an etcd that was wiped and started with the same flags has the same one.
type lineage struct {
	clusterID uint64
	epoch     string // "": not known
	revision  int64  // the newest that was seen; 0: not counted here
	witness   witness
	gone      tombstone
}

// witness is the last put that was seen.
type witness struct {
	key     string // "": none
	mod     int64
	hash    uint64
	deleted bool  // a later deletion of the key was seen too
	at      int64 // the key is known to have been so up to this revision; 0: not counted here
}

// tombstone is the last deletion that was seen as it happened.
type tombstone struct {
	key string // "": none
	mod int64
}

// see takes note of a change. Several followers may tell of it, in turns and not in step.
func (l *lineage) see(ev event) {
	w := &l.witness
	switch {
	case ev.ModRevision <= w.mod:
	case !ev.Deleted:
		*w = witness{key: ev.Key, mod: ev.ModRevision, hash: hashOf(ev.Value, ev.Lease), at: ev.ModRevision}
	default:
		w.deleted = w.deleted || ev.Key == w.key
		if ev.ModRevision > l.gone.mod {
			l.gone = tombstone{ev.Key, ev.ModRevision}
		}
	}
}

// hashOf is that of a value and its lease. Nodes that come back to an empty store write the same rows,
// perhaps in the same order; never on the same lease.
func hashOf(value []byte, lease clientv3.LeaseID) uint64 {
	h := fnv.New64a()
	h.Write(value)
	if lease != 0 {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(lease)))
	}
	return h.Sum64()
}

// prove asks the store whether it is the one of l, whose rows were known up to revision. The error
// is one of the connection; it says nothing about continuity.
func (l *lineage) prove(ctx context.Context, c *Client, revision int64) (Continuity, error) {
	epoch, id, newest, err := readEpoch(ctx, c)
	if err != nil {
		return "", err
	}
	if id != 0 && (id != l.clusterID || newest < l.revision || l.epoch != "" && epoch != l.epoch) {
		return ContinuityBroken, nil
	}
	if l.witness.key == "" {
		return ContinuityUnproven, nil
	}
	// The witness as of the last known revision. That is usually not compacted, even where the
	// put itself is long ago.
	if l.witness.deleted {
		revision = l.witness.mod
	}
	found, err := l.compare(ctx, c, revision)
	if err != nil || found == ContinuityBroken || l.gone.mod <= l.witness.mod {
		return found, err
	}
	lacks, err := l.lacksDeletion(ctx, c)
	switch {
	case err != nil:
		return "", err
	case lacks:
		return ContinuityBroken, nil
	}
	return found, nil
}

// lacksDeletion says whether the deletion that came after the witness never happened in the store: it is
// a copy from before, which may have the witness all the same.
func (l *lineage) lacksDeletion(ctx context.Context, c *Client) (bool, error) {
	for i, at := range []int64{l.gone.mod, l.gone.mod - 1} {
		resp, err := getAt(ctx, c, l.gone.key, at)
		switch {
		case errors.Is(err, rpctypes.ErrCompacted):
			return false, nil // nobody can tell
		case errors.Is(err, rpctypes.ErrFutureRev):
			return true, nil
		case err != nil:
			return false, err
		case resp.Header.ClusterId != l.clusterID || len(resp.Kvs) != i:
			return true, nil
		}
	}
	return false, nil
}

func (l *lineage) compare(ctx context.Context, c *Client, at int64) (Continuity, error) {
	resp, err := getAt(ctx, c, l.witness.key, at)
	switch {
	case errors.Is(err, rpctypes.ErrCompacted) && at != 0:
		// The key may still be as it was.
		if now, err := l.compare(ctx, c, 0); err != nil || now == ContinuityProven {
			return now, err
		}
		return ContinuityUnproven, nil
	case errors.Is(err, rpctypes.ErrFutureRev):
		return ContinuityBroken, nil
	case err != nil:
		return "", err
	}
	if resp.Header.ClusterId != l.clusterID || len(resp.Kvs) != 1 ||
		resp.Kvs[0].ModRevision != l.witness.mod || hashOf(resp.Kvs[0].Value, clientv3.LeaseID(resp.Kvs[0].Lease)) != l.witness.hash {
		return ContinuityBroken, nil
	}
	return ContinuityProven, nil
}

// getAt asks for one key as of a revision; 0: now.
func getAt(ctx context.Context, c *Client, key string, at int64) (resp *clientv3.GetResponse, err error) {
	err = c.do(ctx, "get "+key, func(ctx context.Context) (err error) {
		resp, err = c.etcd.Get(ctx, key, clientv3.WithRev(at))
		return err
	})
	return resp, err
}

// readEpoch returns the ID of the epoch, the cluster id and the newest revision of the store; an
// epoch of "" was never written, or may not be read by this client, and a cluster id of 0 is not known.
func readEpoch(ctx context.Context, c *Client) (epoch string, clusterID uint64, revision int64, err error) {
	resp, err := getAt(ctx, c, schema.EpochKey, 0)
	var denied *EndpointError
	if errors.As(err, &denied) && denied.Reason == ReasonUnauthorised {
		return "", 0, 0, nil // a remote that grants less
	}
	if err != nil {
		return "", 0, 0, fmt.Errorf("read the epoch: %w", err)
	}
	if len(resp.Kvs) > 0 {
		epoch = epochID(resp.Kvs[0].Value)
	}
	return epoch, resp.Header.ClusterId, resp.Header.Revision, nil
}

// epochID is the ID in a value of the epoch, or the value where it has none.
func epochID(value []byte) string {
	e, err := schema.DecodeEpoch(value)
	if err != nil {
		return string(value)
	}
	return e.ID
}
