// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"log/slog"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// traced logs, at the level debug, everything that a follower takes over from its store, before it goes
// on: with that what a process saw can be compared with what the store had, by people and by
// integration/history. The words and the names of the attributes are read by its tests.
type traced struct {
	sink
	prefix string
	log    *slog.Logger
}

// trace puts itself before the sink, once, if anybody wants to read it.
func (f *follower) trace(ctx context.Context) {
	if _, is := f.sink.(traced); !is && f.log.Enabled(ctx, slog.LevelDebug) {
		f.sink = traced{f.sink, f.cfg.prefix, f.log}
	}
}

func (t traced) page(kvs []KV, restart bool) {
	rows := make(map[string]int64, len(kvs))
	for _, kv := range kvs {
		rows[kv.Key] = kv.ModRevision
	}
	t.log.Debug("watch lists a page", "prefix", t.prefix, "first", restart, "rows", rows)
	t.sink.page(kvs, restart)
}

func (t traced) listed(ctx context.Context, revision int64, continuity Continuity) {
	t.log.Debug("watch has listed", "prefix", t.prefix, "revision", revision, "continuity", continuity)
	t.sink.listed(ctx, revision, continuity)
}

// opened says that a stream has begun after a revision, before its continuity is proven.
func (f *follower) opened(header *pb.ResponseHeader) {
	f.log.Debug("watch is open", "prefix", f.cfg.prefix, "after", f.revision, "revision", header.Revision)
}

func (t traced) events(ctx context.Context, evs []event) {
	for _, ev := range evs {
		t.log.Debug("watch sees a change", "prefix", t.prefix, "revision", ev.ModRevision, "key", ev.Key, "deleted", ev.Deleted)
	}
	t.sink.events(ctx, evs)
}

func (t traced) confirmed(revision int64, at time.Time) {
	t.log.Debug("watch is confirmed", "prefix", t.prefix, "revision", revision)
	t.sink.confirmed(revision, at)
}
