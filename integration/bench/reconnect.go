// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// reconnectGoal of C5: a node that missed many revisions has its maps right after at most that many
// times what one range over the rows takes.
const reconnectGoal = 3

// Of the rows, every sixth changes while a node is away, as often as the missed revisions suffice for;
// every second of these is in the end what it was. Some other rows go, or come back.
const (
	changedOf = 6
	comeAndGo = 500
)

// absence is the benchmark of C5: a store with all rows, a node that mirrors them, and what both
// should hold.
type absence struct {
	store  *store
	direct *kvstore.Client
	floor  *kvstore.Client // through its own gate
	mirror *mirror
	missed int
	want   map[netip.Prefix]uint32
	round  int

	began   time.Time // when the gate was opened
	first   time.Time // when the node's connection stood
	differs []netip.Prefix
}

// measureReconnect is C5.
func measureReconnect(ctx context.Context, cfg Config) (_ []Line, err error) {
	a := &absence{missed: cfg.Missed, want: map[netip.Prefix]uint32{}}
	if a.store, err = startStore(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.store.stop()) }()
	w := newWorld("wb"+strconv.Itoa(os.Getpid())+"-reconnect", 4)
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := a.begin(ctx, w); err != nil {
		return nil, err
	}
	var sinceOpen, differences, writes []float64
	all, err := measureBeside(ctx, cfg, "C5", func() (sample, error) {
		s, err := a.leaveAndReturn(ctx)
		if err != nil {
			return s, err
		}
		sinceOpen = append(sinceOpen, (s.wall + a.first.Sub(a.began)).Seconds())
		differences = append(differences, float64(a.puts()))
		writes = append(writes, float64(a.mirror.written(a.began)))
		return s, nil
	}, func() (sample, error) {
		return timed(func() error {
			_, err := a.floor.Etcd().Get(ctx, schema.IPs(scope()).Prefix, clientv3.WithPrefix())
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	line := besideLine("C5", fmt.Sprintf("%d revisions missed: one range / maps right again", a.missed), reconnectGoal, all)
	open := Line{Row: "C5", What: "the same from the moment the store can be reached", Met: true, Valid: line.Valid, Why: line.Why}
	if s, err := median(sinceOpen); err == nil && s > 0 {
		open.Ratio, open.OfNS, open.ToNS = line.ToNS/(s*1e9), s*1e9, line.ToNS
	}
	exact := Line{Row: "C5", What: "rows that differ / rows written into the map", Goal: 1, Valid: true}
	d, _ := median(differences)
	wr, err := median(writes)
	if err != nil || wr == 0 {
		return nil, errors.New("nothing was written into the map")
	}
	exact.Ratio = d / wr
	exact.Met = exact.Ratio == 1
	return []Line{line, open, exact}, nil
}

// begin fills the store and starts the node.
func (a *absence) begin(ctx context.Context, w *World) (err error) {
	if a.direct, err = a.store.client(a.store.URL); err != nil {
		return err
	}
	if a.floor, err = a.store.client(a.store.Floor); err != nil {
		return err
	}
	if err := setUp(ctx, a.direct); err != nil {
		return err
	}
	if err := fillIPs(ctx, a.direct); err != nil {
		return err
	}
	for i := range manyRows {
		a.want[ipPrefix(i)] = identityOf(i, 0)
	}
	c, err := a.store.client(a.store.Ours)
	if err != nil {
		return err
	}
	if a.mirror, err = newMirror(ctx, w, c); err != nil {
		return err
	}
	if err := a.converged(ctx, 1); err != nil {
		return err
	}
	return wait(ctx, "the first rows", func() bool { return a.verify() == nil })
}

// leaveAndReturn cuts the node off, makes the changes, lets it in again and returns what the node
// took from its first connection until its maps are right.
func (a *absence) leaveAndReturn(ctx context.Context) (s sample, err error) {
	if _, err := a.store.ask("shut ours"); err != nil {
		return s, err
	}
	revision, err := a.change(ctx)
	if err != nil {
		return s, fmt.Errorf("change rows: %w", err)
	}
	if a.began, err = a.store.ask("open ours"); err != nil {
		return s, err
	}
	cpu := ownCPU()
	if err := a.converged(ctx, revision); err != nil {
		return s, err
	}
	end := time.Now()
	s.cpu = ownCPU() - cpu
	if a.first, err = a.store.ask("first ours"); err != nil {
		return s, err
	}
	s.wall = end.Sub(a.first)
	return s, a.verify()
}

// change makes the revisions that the node misses and returns the last one. differs are the rows
// that are not what they were.
func (a *absence) change(ctx context.Context) (revision int64, err error) {
	a.round++
	a.differs = a.differs[:0]
	const rows = manyRows / changedOf
	times := max(1, a.missed/rows)
	err = atOnce(64, rows, func(n int) error {
		for t := range times {
			now := 1000 + t // what nobody is going to see
			if t == times-1 {
				now = n % 2 * a.round // every second is what it was
			}
			if err := a.put(ctx, n*changedOf, now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for n := 1; n < rows; n += 2 {
		a.differ(n*changedOf, identityOf(n*changedOf, a.round))
	}
	for n := range comeAndGo {
		i := n*changedOf + 1
		identity := identityOf(i, 0)
		if a.round%2 == 1 {
			identity = 0
			key, _, err := ipRow(i, identityOf(i, 0))
			if err == nil {
				_, err = a.direct.Delete(ctx, key)
			}
			if err != nil {
				return 0, err
			}
		} else if err := a.put(ctx, i, 0); err != nil {
			return 0, err
		}
		a.differ(i, identity)
	}
	return a.direct.Put(ctx, schema.HeartbeatKey, schema.EncodeTime(time.Now()), 0)
}

func (a *absence) put(ctx context.Context, i, changes int) error {
	key, value, err := ipRow(i, identityOf(i, changes))
	if err == nil {
		_, err = a.direct.Put(ctx, key, value, 0)
	}
	return err
}

// differ notes what a row has to become; 0: nothing.
func (a *absence) differ(i int, identity uint32) {
	p := ipPrefix(i)
	a.differs = append(a.differs, p)
	if identity == 0 {
		delete(a.want, p)
	} else {
		a.want[p] = identity
	}
}

// puts counts the rows that the map has to get: deletions are not rows that were written.
func (a *absence) puts() (n int) {
	for _, p := range a.differs {
		if a.want[p] != 0 {
			n++
		}
	}
	return n
}

// convergeTimeout is how long a node may take before the run is given up.
const convergeTimeout = time.Minute

// wait looks until something is so. It sleeps between looks: a busy loop would take one of few
// processors from those who work.
func wait(ctx context.Context, what string, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, convergeTimeout)
	defer cancel()
	for !done() {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// converged waits until the store is followed up to a revision and all rows that differ are in the
// map.
func (a *absence) converged(ctx context.Context, revision int64) error {
	err := wait(ctx, "the watch", func() bool {
		st := a.mirror.watch.Status()
		return st.Synced && st.Revision >= revision
	})
	for _, p := range a.differs {
		if err == nil {
			err = wait(ctx, "row "+p.String(), func() bool { return a.mirror.identity(p) == a.want[p] })
		}
	}
	return err
}

// verify compares all of the map with what it should hold.
func (a *absence) verify() error {
	have, err := a.mirror.identities()
	if err != nil {
		return err
	}
	if !maps.Equal(have, a.want) {
		return fmt.Errorf("the map is not the store: %d rows, want %d", len(have), len(a.want))
	}
	return nil
}
