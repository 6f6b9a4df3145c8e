// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/apiserver/cache"
)

// invalidID is the watch id of a message that is not about one watch.
const invalidID = clientv3.InvalidWatchID

// Reasons for which a watch is refused, in etcd's words.
const (
	reasonRange     = "mvcc: watcher range is empty"
	reasonDuplicate = "mvcc: duplicate watch ID provided on the WatchStream"
)

// watch is one watch of a stream.
type watch struct {
	id       int64
	from, to string      // to is exclusive, "" behind every key
	next     int64       // the first revision that was not delivered
	wait     func() bool // not nil: nothing is delivered before it is true
	told     bool        // something since the last word of progress
	ended    chan struct{}
	never    atomic.Bool // it begins at a revision that the store never had

	prevKV, progress, fragment, noPut, noDelete bool
}

// handle does what a client asks.
func (ws *watchStream) handle(ctx context.Context, req *pb.WatchRequest) error {
	switch r := req.RequestUnion.(type) {
	case *pb.WatchRequest_CreateRequest:
		if r.CreateRequest != nil {
			return ws.create(ctx, r.CreateRequest)
		}
	case *pb.WatchRequest_CancelRequest:
		if r.CancelRequest == nil || ws.watches[r.CancelRequest.WatchId] == nil {
			return nil
		}
		ws.remove(r.CancelRequest.WatchId)
		return ws.send(&pb.WatchResponse{
			Header: ws.header(ws.gen, ws.gen.Store.Revision()), WatchId: r.CancelRequest.WatchId, Canceled: true,
		})
	case *pb.WatchRequest_ProgressRequest:
		ws.asked = len(ws.watches) > 0 && !ws.cache.Stale()
	}
	return nil
}

// create begins a watch, or refuses it as etcd does: created and canceled in one message.
func (ws *watchStream) create(ctx context.Context, r *pb.WatchCreateRequest) error {
	if len(r.Key) == 0 {
		r.Key = []byte{0}
	}
	reason := ""
	switch w := ws.watches[r.WatchId]; {
	case r.StartRevision < 0:
		reason = rpctypes.ErrCompacted.Error()
	case !ws.user.rights.allow(r.Key, r.RangeEnd):
		reason = rpctypes.ErrGRPCPermissionDenied.Error()
	case len(r.RangeEnd) > 0 && string(r.RangeEnd) != "\x00" && string(r.Key) >= string(r.RangeEnd):
		reason = reasonRange
	case r.WatchId != clientv3.AutoWatchID && w != nil:
		reason = reasonDuplicate
	case ws.user.request() != nil, !ws.user.openWatch():
		ws.refused.Add(1)
		reason = rpctypes.ErrGRPCRequestTooManyRequests.Error()
	}
	rev := ws.gen.Store.Revision()
	resp := &pb.WatchResponse{Header: ws.header(ws.gen, rev), WatchId: invalidID, Created: true}
	if reason != "" {
		resp.Canceled, resp.CancelReason = true, reason
		return ws.send(resp)
	}
	w := &watch{
		id: r.WatchId, next: r.StartRevision, ended: make(chan struct{}),
		prevKV: r.PrevKv, progress: r.ProgressNotify, fragment: r.Fragment,
		noPut:    slices.Contains(r.Filters, pb.WatchCreateRequest_NOPUT),
		noDelete: slices.Contains(r.Filters, pb.WatchCreateRequest_NODELETE),
	}
	w.from, w.to = cache.Bounds(r.Key, r.RangeEnd)
	if w.next == 0 {
		w.next = rev + 1
	}
	if w.id == clientv3.AutoWatchID {
		for ws.watches[ws.next] != nil {
			ws.next++
		}
		w.id = ws.next
		ws.next++
	}
	ws.watches[w.id] = w
	i, _ := slices.BinarySearch(ws.order, w.id)
	ws.order = slices.Insert(ws.order, i, w.id)
	if w.next > rev+1 {
		ws.judge(ctx, w)
	}
	resp.WatchId = w.id
	return ws.send(resp)
}

// judge finds out whether the store ever reaches the revision a watch begins at. One that it never
// had comes from another store: the watch is ended as if what it asks for were forgotten, where etcd
// would leave it silent until the store gets there, and then wrong.
func (ws *watchStream) judge(ctx context.Context, w *watch) {
	reached := make(chan struct{})
	ws.later(ctx, w, reached)
	start, store := w.next, ws.gen.Store
	ws.senders.Go(func() {
		for ctx.Err() == nil {
			fresh, err := ws.cache.Sync(ctx)
			switch rev := store.Revision(); {
			case err != nil:
				return
			case rev+1 >= start:
				close(reached)
				return
			case fresh:
				w.never.Store(true)
				ws.poke()
				return
			}
			select {
			case <-ctx.Done():
			case <-w.ended:
				return
			case <-time.After(jittered(time.Second)):
			}
		}
	})
}

// pick returns the events of some changes that a watch is for.
func (w *watch) pick(changes []cache.Change) (evs []cache.Change) {
	for _, c := range changes {
		key := string(c.Kv.Key)
		if key < w.from || w.to != "" && key >= w.to ||
			w.noPut && c.Type == mvccpb.Event_PUT || w.noDelete && c.Type == mvccpb.Event_DELETE {
			continue
		}
		evs = append(evs, c)
	}
	return evs
}

// jittered spreads an interval, so that streams that began together do not speak together.
func jittered(d time.Duration) time.Duration { return d + rand.N(d/10+1) }
