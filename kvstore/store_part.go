// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/weft-net/weft/kvstore/schema"
)

// Feed is a Watch that a Store learns from what is stored.
type Feed interface {
	tap(sink)
}

func (w *Watch[K, V]) tap(s sink) { w.taps = append(w.taps, s) }

// Companion is a kind of rows that is computed from the rows of a Store and written in the same
// transaction: an endpoint and its addresses. NewCompanion makes one.
type Companion[K comparable, V any] struct {
	part part[K, V]
}

// NewCompanion describes rows of another codec. rows gives those of one row of the store; owns
// and feed mean what they mean in StoreConfig, and may be nil.
func NewCompanion[K comparable, V any, K2 comparable, V2 any](codec schema.Codec[K2, V2], rows func(K, V) map[K2]V2,
	owns func(K2, V2) bool, feed Feed,
) Companion[K, V] {
	p := part[K, V]{prefix: codec.Prefix, feed: feed}
	p.rows = func(k K, v V, into map[string][]byte) error {
		for k2, v2 := range rows(k, v) {
			key := codec.Prefix + codec.FormatKey(k2)
			b, err := codec.Encode(k2, v2)
			if err != nil {
				return fmt.Errorf("encode %s: %w", key, err)
			}
			into[key] = b
		}
		return nil
	}
	p.owns = func(key string, value []byte) bool {
		if owns == nil {
			return false
		}
		k2, err := codec.ParseKey(key[len(codec.Prefix):])
		if err != nil {
			return false
		}
		v2, err := codec.Decode(k2, value)
		return err == nil && owns(k2, v2)
	}
	return Companion[K, V]{p}
}

// part is one kind of rows of a Store.
type part[K comparable, V any] struct {
	prefix string
	rows   func(k K, v V, into map[string][]byte) error
	owns   func(key string, value []byte) bool
	feed   Feed
	follow *follower // if there is no feed
	listed bool
}

// feedQueue passes what followers say on to the store's own goroutine.
type feedQueue struct {
	wake chan struct{} // one slot

	mu    sync.Mutex
	words []feedWord
}

// feedWord is a list, or events.
type feedWord struct {
	part       int
	list       []KV
	revision   int64 // of the list; 0: events
	continuity Continuity
	events     []event
}

func (q *feedQueue) push(w feedWord) {
	q.mu.Lock()
	q.words = append(q.words, w)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *feedQueue) take() []feedWord {
	q.mu.Lock()
	defer q.mu.Unlock()
	words := q.words
	q.words = nil
	return words
}

// partSink gathers the pages of one part's list.
type partSink struct {
	queue *feedQueue
	part  int
	pages []KV
}

func (p *partSink) page(kvs []KV, restart bool) {
	if restart {
		p.pages = nil
	}
	p.pages = append(p.pages, kvs...)
}

func (p *partSink) listed(_ context.Context, revision int64, continuity Continuity) {
	p.queue.push(feedWord{part: p.part, list: p.pages, revision: revision, continuity: continuity})
	p.pages = nil
}

func (p *partSink) events(_ context.Context, evs []event) {
	p.queue.push(feedWord{part: p.part, events: evs})
}

func (p *partSink) confirmed(int64, time.Time) {}
