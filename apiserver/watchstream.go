// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"time"
	"weak"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/mem"

	"github.com/weft-net/weft/apiserver/cache"
)

// watchStream is one stream with any number of watches, all of one generation. Only serve touches
// what is not a channel.
type watchStream struct {
	*Server
	user *user
	gen  *cache.Generation
	rpc  pb.Watch_WatchServer

	ofGen weak.Pointer[cache.Generation] // gen

	requests chan request
	wake     chan struct{} // something that a watch waited for has happened
	sending  atomic.Pointer[time.Time]

	watches map[int64]*watch
	order   []int64 // of watches, ascending
	round   []int64 // order, while it is gone through
	paid    int     // bytes that the user has spent and that were not sent yet
	next    int64   // the id that is tried next
	asked   bool    // progress of all is still to be told
	spoke   bool    // events were sent since the window was opened
}

// request is what a client asks, or why it will ask no more. Few channels to wait for make thousands of
// streams that wake at the same moment cheaper.
type request struct {
	*pb.WatchRequest
	err error
}

func newWatchStream(s *Server, u *user, gen *cache.Generation, rpc pb.Watch_WatchServer) *watchStream {
	return &watchStream{
		Server: s, user: u, gen: gen, ofGen: weak.Make(gen), rpc: rpc,
		requests: make(chan request), wake: make(chan struct{}, 1), watches: map[int64]*watch{},
	}
}

// receive hands the client's requests on. A client that sends no more still gets what it asked for,
// until it ends the call.
func (ws *watchStream) receive(ctx context.Context) {
	for {
		req, err := ws.rpc.Recv()
		if errors.Is(err, io.EOF) {
			return
		}
		// What is not refused by itself waits for its turn; what is to be told goes on meanwhile.
		if err == nil && req.GetCreateRequest() == nil {
			if err = ws.user.requests.Wait(ctx); err != nil {
				ws.refused.Add(1)
				err = rpctypes.ErrGRPCRequestTooManyRequests
			}
		}
		select {
		case ws.requests <- request{req, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// serve goes round: deliver what there is, then wait for a request or for something to deliver. Where
// changes are coalesced, a window is shut behind each delivery, and what happens until it opens again
// goes out together; whatever a client asks opens it.
func (ws *watchStream) serve(ctx context.Context) error {
	ws.senders.Go(func() { ws.receive(ctx) })
	defer func() { ws.user.closeWatches(len(ws.watches)) }()
	progress := time.NewTicker(jittered(ws.cfg.Progress))
	defer progress.Stop()
	window := time.NewTimer(time.Hour)
	defer window.Stop()
	var opens <-chan time.Time // nil: the window is open
	for {
		rev, changed := ws.gen.Store.Changed()
		var at <-chan struct{}
		if opens == nil {
			more, err := ws.deliver(ctx, rev)
			if err != nil {
				return err
			}
			at = changed
			if more {
				at = ws.closed
			} else if ws.spoke && ws.cfg.Coalesce > 0 {
				window.Reset(ws.cfg.Coalesce)
				opens, at, ws.spoke = window.C, nil, false
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ws.gen.Done():
			return errReplaced
		case req := <-ws.requests:
			if req.err != nil {
				return req.err
			}
			opens = nil
			if err := ws.handle(ctx, req.WatchRequest); err != nil {
				return err
			}
		case <-progress.C:
			if err := ws.tellProgress(rev); err != nil {
				return err
			}
		case <-opens:
			opens = nil
		case <-ws.wake:
		case <-at:
		}
	}
}

// deliver sends each watch one message of what it has not seen, up to a revision, and reports whether
// there is more.
func (ws *watchStream) deliver(ctx context.Context, rev int64) (more bool, err error) {
	fetched := fetched{store: ws.gen.Store}
	ws.round = append(ws.round[:0], ws.order...) // some may end
	for _, id := range ws.round {
		w := ws.watches[id]
		if w.never.Load() {
			if err := ws.end(w, rev+1); err != nil {
				return false, err
			}
			continue
		}
		if w.wait != nil && !w.wait() {
			continue
		}
		w.wait = nil
		if w.next > rev {
			continue
		}
		if m := ws.made(w, rev); m != nil {
			if err := ws.sendMessage(ctx, w, m.eventMessage); err != nil {
				return false, err
			}
			w.next = m.through + 1
			continue
		}
		b, err := fetched.since(w.next, w.prevKV)
		var filling *cache.FillingError
		var compacted *cache.CompactedError
		switch {
		case errors.As(err, &filling):
			ws.later(ctx, w, filling.Done)
			continue
		case errors.As(err, &compacted):
			if err := ws.end(w, compacted.Revision); err != nil {
				return false, err
			}
			continue
		case err != nil:
			return false, err
		}
		if err := ws.sendEvents(ctx, w, b); err != nil {
			return false, err
		}
		w.next = b.Through + 1
		more = more || w.next <= rev
	}
	if ws.asked && !more && !slices.ContainsFunc(ws.order, func(id int64) bool { return ws.watches[id].wait != nil }) {
		ws.asked = false
		if !ws.cache.Stale() {
			return false, ws.send(&pb.WatchResponse{Header: ws.header(ws.gen, rev), WatchId: invalidID})
		}
	}
	return more, nil
}

// later lets a watch wait for something without holding up the others.
func (ws *watchStream) later(ctx context.Context, w *watch, happens <-chan struct{}) {
	var over atomic.Bool
	w.wait = over.Load
	ws.senders.Go(func() {
		select {
		case <-happens:
			over.Store(true)
			ws.poke()
		case <-w.ended:
		case <-ctx.Done():
		}
	})
}

// poke has the stream look again at what it delivers.
func (ws *watchStream) poke() {
	select {
	case ws.wake <- struct{}{}:
	default: // it is about to
	}
}

// sendEvents sends a watch what of a batch is for it. Nothing is sent where nothing is.
func (ws *watchStream) sendEvents(ctx context.Context, w *watch, b cache.Batch) error {
	picked := w.pick(b.Changes)
	if len(picked) == 0 {
		return nil
	}
	m := &eventMessage{
		head: &pb.WatchResponse{Header: ws.header(ws.gen, b.Through), WatchId: w.id}, events: make(mem.BufferSlice, len(picked)),
	}
	for i, c := range picked {
		m.events[i] = c.Encoded
		if w.prevKV && c.Prev != nil {
			m.events[i] = c.EncodedWithPrev()
			ws.encoded.Add(uint64(m.events[i].Len()))
		}
	}
	if of, ok := ws.messageOf(w); ok && of.term == m.head.Header.RaftTerm {
		encoded, err := ws.codec.Marshal(m)
		if err != nil {
			return err
		}
		m.whole = encoded
		ws.shared.Store(&sharedMessage{of, b.Through, m})
	}
	if w.fragment {
		for _, part := range m.fragments() {
			if err := ws.sendMessage(ctx, w, part); err != nil {
				return err
			}
		}
		return nil
	}
	return ws.sendMessage(ctx, w, m)
}

// sendMessage sends events to a watch.
func (ws *watchStream) sendMessage(ctx context.Context, w *watch, m *eventMessage) error {
	w.told, ws.spoke = true, true
	if err := ws.pay(ctx, m.events.Len()); err != nil {
		return err
	}
	ws.events.Add(uint64(len(m.events)))
	return ws.send(m)
}

// advance is the share of its user's bytes of a second that a stream spends at once: of 1 GiB 64 KiB.
// Thousands of streams of one user that asked for each message would wait for one another.
const advance = 1.0 / 16384

// pay spends so many bytes, of what was spent in advance where that suffices.
func (ws *watchStream) pay(ctx context.Context, bytes int) error {
	if bytes > ws.paid {
		n := max(bytes-ws.paid, int(float64(ws.user.bytes.Burst())*advance))
		if err := ws.user.spend(ctx, n); err != nil {
			return err
		}
		ws.paid += n
	}
	ws.paid -= bytes
	return nil
}

// tellProgress tells watches that asked for it, and heard nothing since the last time, how far they
// are. While the store is away nobody is told: that is how a client learns of it.
func (ws *watchStream) tellProgress(rev int64) error {
	stale := ws.cache.Stale()
	for _, id := range ws.order {
		w := ws.watches[id]
		if w.progress && !w.told && !stale && w.wait == nil && w.next > rev {
			err := ws.send(&pb.WatchResponse{Header: ws.header(ws.gen, rev), WatchId: id})
			if err != nil {
				return err
			}
		}
		w.told = false
	}
	return nil
}

// end ends a watch that asks for what is forgotten; the client is told from where on it is known.
func (ws *watchStream) end(w *watch, from int64) error {
	ws.remove(w.id)
	return ws.send(&pb.WatchResponse{
		Header: ws.header(ws.gen, ws.gen.Store.Revision()), WatchId: w.id, Canceled: true, CompactRevision: from,
	})
}

func (ws *watchStream) remove(id int64) {
	close(ws.watches[id].ended)
	delete(ws.watches, id)
	if i, found := slices.BinarySearch(ws.order, id); found {
		ws.order = slices.Delete(ws.order, i, i+1)
	}
	ws.user.closeWatches(1)
}

// send sends one message, a *pb.WatchResponse or an *eventMessage, and lets the others see how long
// that takes.
func (ws *watchStream) send(m any) error {
	now := time.Now()
	ws.sending.Store(&now)
	defer ws.sending.Store(nil)
	return ws.rpc.SendMsg(m)
}

// fetched remembers what was read from the history for one watch: most watches of a stream want the
// same.
type fetched struct {
	store *cache.Store
	from  int64
	prev  bool
	batch cache.Batch
	valid bool
}

func (f *fetched) since(from int64, prev bool) (cache.Batch, error) {
	if f.valid && f.from == from && f.prev == prev {
		return f.batch, nil
	}
	b, err := f.store.Since(from, messageBytes, prev)
	if err == nil {
		f.from, f.prev, f.batch, f.valid = from, prev, b, true
	}
	return b, err
}
