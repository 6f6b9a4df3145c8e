// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// Config says what is cached and how. Cluster is required.
type Config struct {
	// Cluster is whose etcd it is: its nodes tell when a store that was lost is itself again.
	Cluster string
	// Prefix is what is cached. Default "cilium/".
	Prefix string
	// History is how much of the past is kept.
	History History
	// PageSize is the number of keys asked for at once. Default 20,000.
	PageSize int
	// FillSlices is into how many watches the history is divided that is fetched after a start.
	// Default 8; negative: no history is fetched.
	FillSlices int
	// Patience is how long a read waits for the etcd before it is answered with what is known.
	// Default 1 s.
	Patience time.Duration
	// Probe is how often the etcd is asked how far it is when nothing happens. Default 2 s. An etcd
	// that says nothing for three times as long is taken as away.
	Probe time.Duration
	// RequestTimeout bounds one request to the etcd. Default 15 s.
	RequestTimeout time.Duration
	// HoldLimit is how long the last view of a store that was lost is served when its owners do not
	// come back, counted while the etcd answers. Default 20 min.
	HoldLimit time.Duration
	// HoldLonger is how much longer a view is served after another could take its place. Replicas that
	// have different ones do not end all streams of the mesh at the same time. Default 0.
	HoldLonger time.Duration
	// HoldGrace is how long nothing goes of what is held after another store took the place of the lost
	// one: clients list it meanwhile, so that they see what goes be deleted. Default 10 s.
	HoldGrace time.Duration
	// HoldLinger is how long a generation goes on of which nothing is held any more. Agents keep what
	// goes at once for half a minute, and would for much longer if the store changed meanwhile. Default
	// 90 s.
	HoldLinger time.Duration
	// File keeps what is served of a store that was lost, over restarts. Empty: in memory only.
	File string
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&c.Patience, time.Second)
	set(&c.Probe, 2*time.Second)
	set(&c.RequestTimeout, 15*time.Second)
	set(&c.HoldLimit, 20*time.Minute)
	set(&c.HoldGrace, 10*time.Second)
	set(&c.HoldLinger, 90*time.Second)
	if c.Prefix == "" {
		c.Prefix = "cilium/"
	}
	if c.PageSize <= 0 {
		c.PageSize = kvstore.DefaultPageSize
	}
	if c.FillSlices == 0 {
		c.FillSlices = 8
	}
	c.History = c.History.withDefaults()
	return c
}

// Generation is one life of the upstream store as the cache knows it. Within it revisions mean the
// same, over restarts of the etcd and of this process.
type Generation struct {
	Store *Store
	// ClusterID is what clients are told: made of the etcd's cluster id and the epoch, so that it is
	// the same on all replicas and new exactly when the store is another one.
	ClusterID uint64
	Epoch     string // "": the store has none

	upstream uint64 // the etcd's own cluster id
	from     int64  // nothing is fetched of what happened before; 0: the history decides
	held     *held  // of the store before; nil: nothing is
	done     chan struct{}
}

// Done is closed when another generation took this one's place.
func (g *Generation) Done() <-chan struct{} { return g.done }

// newGeneration makes a generation of a store with what is held of the one before; nil: nothing is. A
// replica that holds has another cluster id than one that does not, for they do not serve the same.
func newGeneration(s *Store, upstream uint64, epoch string, last *held) *Generation {
	h := fnv.New64a()
	_ = binary.Write(h, binary.BigEndian, upstream) // a hash never fails
	h.Write([]byte(epoch))
	if last != nil {
		h.Write([]byte("\x00held"))
	}
	return &Generation{
		Store: s, ClusterID: max(h.Sum64(), 1), Epoch: epoch, upstream: upstream, held: last, done: make(chan struct{}),
	}
}

// Cache keeps the range of one etcd. Its methods may be called at any time; nothing is known before
// Run has listed once.
type Cache struct {
	cfg     Config
	client  *kvstore.Client
	log     *slog.Logger
	gen     atomic.Pointer[Generation]
	term    atomic.Uint64
	witness witness
	reads   batch
	// questions holds one for the etcd's progress that is about to be asked.
	questions chan struct{}
	ready     chan struct{} // closed once there is a generation
	past      func(_ context.Context, _ *Generation, from, through int64) ([]past, error)
	between   time.Duration // two questions for the history
	unread    bool          // the history of the first list is still to be fetched
	over      time.Time     // since when the hold could end; zero: it could not
	waited    time.Duration // how long the last view of a lost store was served while the etcd answered
	kept      keptView

	mu     sync.Mutex
	status Status
	ask    func() error // asks the etcd how far it is; nil: it is away
}

// Status says what is known of the upstream etcd.
type Status struct {
	Connected bool
	Heard     time.Time // when the etcd last said anything; zero: never
	Away      time.Time // since when it is away; zero: it is not
	Lists     uint64
	Watches   uint64    // how often the watch began
	Holding   time.Time // since when the last view of a lost store is served; zero: it is not
	Held      Held      // what is served of a lost store beside its successor
	LastError error
	Answered  uint64 // reads that were answered without having asked the etcd
}

// Held says what is served although the store does not have it: it lost it, and its owner did not say yet
// that it is gone.
type Held struct {
	Rows   int
	Silent int       // nodes of the lost store that have not spoken
	Since  time.Time // zero: nothing is held
}

// New returns a cache of the etcd behind a client.
func New(client *kvstore.Client, cfg Config, log *slog.Logger) (*Cache, error) {
	if cfg.Cluster == "" {
		return nil, errors.New("cache: no cluster name is set")
	}
	c := &Cache{cfg: cfg.withDefaults(), client: client, log: log, ready: make(chan struct{}), questions: make(chan struct{}, 1)}
	c.past, c.between = c.fetch, fillPause
	c.status.Away = time.Now()
	c.reads.init()
	return c, nil
}

// Generation returns the present one, nil before the first list.
func (c *Cache) Generation() *Generation { return c.gen.Load() }

// Ready is closed as soon as there is a generation.
func (c *Cache) Ready() <-chan struct{} { return c.ready }

// Term is the etcd's raft term as it was told last.
func (c *Cache) Term() uint64 { return c.term.Load() }

// Status returns the state at this moment.
func (c *Cache) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// Stale reports whether what is served may be behind the etcd by more than a moment.
func (c *Cache) Stale() bool {
	st := c.Status()
	return !st.Connected || !st.Holding.IsZero()
}

// Run follows the etcd until ctx ends.
func (c *Cache) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.reads.run(ctx, c.shareQuorum) })
	g.Go(func() error { return c.askAll(ctx) })
	g.Go(func() error { return c.follow(ctx) })
	return g.Wait()
}

// follow goes round: connect, prove, follow, until something ends it.
func (c *Cache) follow(ctx context.Context) error {
	c.recall()
	const shortest, longest = 100 * time.Millisecond, 3 * time.Second
	for wait := shortest; ; wait = min(2*wait, longest) {
		before := c.Status().Heard
		err := c.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.away(err)
		if c.Status().Heard.After(before) {
			wait = shortest
		}
		if !pause(ctx, wait/2+rand.N(wait/2)) {
			return ctx.Err()
		}
	}
}

// session follows the etcd over one stream.
func (c *Cache) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gen := c.gen.Load()
	if gen == nil {
		var err error
		if gen, err = c.begin(ctx, nil); err != nil {
			return err
		}
		c.publishUnread(gen)
	}
	st, err := openStream(ctx, c.client.Etcd())
	if err != nil {
		return err
	}
	defer st.close()
	// A watch that starts in the future gets no word of progress before something is written, so both
	// start at what is known already.
	err = st.create(&pb.WatchCreateRequest{
		WatchId: watchKeys, Key: []byte(c.cfg.Prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(c.cfg.Prefix)),
		StartRevision: gen.Store.Revision(),
	})
	if err != nil {
		return err
	}
	// The stream is there before the proof: a store that is replaced behind it ends the stream.
	epoch, revision, err := c.readEpoch(ctx)
	if err != nil {
		return err
	}
	found, err := c.prove(ctx, gen, epoch)
	switch {
	case err != nil:
		return fmt.Errorf("prove: %w", err)
	case found == broken:
		return c.hold(ctx)
	case found == gap:
		return c.relist(ctx)
	case epoch != gen.Epoch:
		c.log.Info("the store has a new epoch", "epoch", epoch)
		if gen.held != nil {
			gen.held.renewed(epoch, gen.Store.Revision())
		}
		next := newGeneration(gen.Store, gen.upstream, epoch, gen.held)
		next.from = gen.from
		c.publish(next)
		return errEpoch
	}

	if revision > 0 {
		err := st.create(&pb.WatchCreateRequest{WatchId: watchEpoch, Key: []byte(schema.EpochKey), StartRevision: revision})
		if err != nil {
			return err
		}
	}

	c.keepAgain(gen, time.Time{})
	if gen.held != nil {
		if err := c.listenOwners(ctx, st, gen.held); err != nil {
			return err
		}
	}

	messages := make(chan *pb.WatchResponse)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return st.receive(gctx, messages) })
	g.Go(func() error {
		defer st.close()
		return c.listen(gctx, st, gen, messages)
	})
	if c.unread {
		g.Go(func() error { return c.fillBack(gctx, gen) })
	}
	err = g.Wait()
	if compacted := (*CompactedError)(nil); errors.As(err, &compacted) {
		return errors.Join(err, c.relist(ctx))
	}
	if errors.Is(err, errSettled) {
		return c.replace(ctx, nil)
	}
	return err
}

// listen takes the messages of a stream.
func (c *Cache) listen(ctx context.Context, st *stream, gen *Generation, messages <-chan *pb.WatchResponse) error {
	w := watched{c, gen}
	probe := time.NewTicker(c.cfg.Probe)
	defer probe.Stop()
	last, first := time.Now(), true
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case resp := <-messages:
			if err := w.take(resp); err != nil {
				return err
			}
			last = time.Now()
			if resp.WatchId == watchKeys && first {
				first = false
				c.back(st.askProgress)
			}
			if resp.WatchId == watchOwners || resp.WatchId == watchDecision {
				if err := st.askProgress(); err != nil { // which lets go what was spoken of
					return err
				}
			}
		case <-probe.C:
			if time.Since(last) > 3*c.cfg.Probe {
				return errSilent
			}
			if err := c.watchHeld(gen, c.cfg.Probe); err != nil {
				return err
			}
			if err := st.askProgress(); err != nil {
				return err
			}
		}
	}
}

// begin makes a generation of what a list finds, and of what it lacks of a store before it; nil: nothing
// is held.
func (c *Cache) begin(ctx context.Context, last *held) (*Generation, error) {
	epoch, _, err := c.readEpoch(ctx)
	if err != nil {
		return nil, err
	}
	l, err := c.list(ctx)
	if err != nil {
		return nil, err
	}
	c.witness.begin(l.kvs)
	c.mu.Lock()
	c.status.Lists++
	c.mu.Unlock()
	if last != nil {
		for _, kv := range l.kvs {
			last.there(kv.Key)
		}
		last.renewed(epoch, l.header.Revision)
		last.ready = time.Now().Add(c.cfg.HoldGrace)
		l.kvs = append(l.kvs, last.all()...)
		if len(last.rows) == 0 {
			last = nil
		}
	}
	s := NewStore(c.cfg.History, l.header.Revision, l.kvs)
	return newGeneration(s, l.header.ClusterId, epoch, last), nil
}

// relist begins anew with what the etcd has now, when what happened meanwhile cannot be known.
func (c *Cache) relist(ctx context.Context) error {
	gen, err := c.begin(ctx, c.gen.Load().held)
	if err != nil {
		return err
	}
	c.log.Info("the store was listed anew", "revision", gen.Store.Revision())
	gen.from = gen.Store.base
	c.publishUnread(gen)
	c.holds(gen.held)
	c.keep(gen, time.Time{})
	return errors.New("the store was listed anew")
}
