// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore/schema"
)

// pageBytes is about how large a page of a list may get before the next is made smaller.
const pageBytes = 16 << 20

// listing is the range as one list found it.
type listing struct {
	header *pb.ResponseHeader
	kvs    []*mvccpb.KeyValue
}

// get reads from the upstream etcd, bounded in time.
func (c *Cache) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	resp, err := c.client.Etcd().Get(ctx, key, opts...)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	c.term.Store(resp.Header.RaftTerm)
	return resp, nil
}

// list reads the whole range at one revision.
func (c *Cache) list(ctx context.Context) (listing, error) {
	var l listing
	end := clientv3.GetPrefixRangeEnd(c.cfg.Prefix)
	limit := int64(c.cfg.PageSize)
	for from := c.cfg.Prefix; ; {
		opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(limit)}
		if l.header != nil {
			opts = append(opts, clientv3.WithRev(l.header.Revision))
		}
		resp, err := c.get(ctx, from, opts...)
		if err != nil {
			return listing{}, fmt.Errorf("list: %w", err)
		}
		if l.header == nil {
			l.header = resp.Header
		}
		if resp.Header.ClusterId != l.header.ClusterId || resp.Header.Revision < l.header.Revision {
			return listing{}, errors.New("list: another store answered than before")
		}
		l.kvs = append(l.kvs, resp.Kvs...)
		if !resp.More || len(resp.Kvs) == 0 {
			return l, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
		size := int64(1)
		for _, kv := range resp.Kvs {
			size += sizeOf(kv)
		}
		limit = min(int64(c.cfg.PageSize), max(1, pageBytes*int64(len(resp.Kvs))/size))
	}
}

// readEpoch returns the id of the epoch, "" where there is none or it may not be read, and the
// revision that was read, 0 where it may not.
func (c *Cache) readEpoch(ctx context.Context) (string, int64, error) {
	resp, err := c.get(ctx, schema.EpochKey)
	if errors.Is(err, rpctypes.ErrPermissionDenied) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	if len(resp.Kvs) == 0 {
		return "", resp.Header.Revision, nil
	}
	return epochOf(resp.Kvs[0].Value), resp.Header.Revision, nil
}

// epochOf is the id in a value of the epoch's key, or the value where it has none.
func epochOf(value []byte) string {
	e, err := schema.DecodeEpoch(value)
	if err != nil {
		return string(value)
	}
	return e.ID
}

// quorum returns the etcd's newest revision, agreed upon by its members.
func (c *Cache) quorum(ctx context.Context) (*pb.ResponseHeader, error) {
	resp, err := c.get(ctx, c.cfg.Prefix+".heartbeat", clientv3.WithCountOnly())
	if err != nil {
		return nil, err
	}
	return resp.Header, nil
}

// watched is the state of one watch of the cached range.
type watched struct {
	c   *Cache
	gen *Generation
}

// take applies one message.
func (w watched) take(resp *pb.WatchResponse) error {
	if resp.Header.ClusterId != w.gen.upstream {
		return errChanged
	}
	w.c.term.Store(resp.Header.RaftTerm)
	if resp.WatchId == watchEpoch {
		for _, ev := range resp.Events {
			if ev.Type == mvccpb.Event_PUT && epochOf(ev.Kv.Value) == w.gen.Epoch {
				continue
			}
			return errEpoch
		}
		return nil
	}
	if h := w.gen.held; h != nil && (resp.WatchId == watchOwners || resp.WatchId == watchDecision) {
		for _, ev := range resp.Events {
			if ev.Type != mvccpb.Event_PUT {
				continue
			}
			if resp.WatchId == watchOwners {
				h.says(ev.Kv)
			} else {
				h.decided(ev.Kv)
			}
		}
		return nil
	}
	for evs := resp.Events; len(evs) > 0; {
		rev, n := evs[0].Kv.ModRevision, 1
		for n < len(evs) && evs[n].Kv.ModRevision == rev {
			n++
		}
		if rev > w.gen.Store.Revision() { // else it is what the watch started at
			all, err := w.withHeld(rev, evs[:n:n], time.Now())
			if err == nil {
				err = w.gen.Store.Apply(rev, all)
			}
			if err != nil {
				return err
			}
			w.c.witness.see(evs[:n])
		}
		evs = evs[n:]
	}
	if len(resp.Events) == 0 && !resp.Created {
		// Word of progress, behind all events up to there.
		if err := w.letGo(resp.Header.Revision, time.Now()); err != nil {
			return err
		}
		w.gen.Store.Advance(resp.Header.Revision)
	}
	w.c.heard(time.Now())
	return nil
}

var (
	// errChanged means that another store answers than the one that was cached.
	errChanged = errors.New("another store answers than before")
	// errEpoch means that the store says that it is another one.
	errEpoch = errors.New("the store has another epoch than before")
	// errSilent means that the etcd holds a connection and says nothing on it.
	errSilent = errors.New("the etcd does not answer on its watch")
)
