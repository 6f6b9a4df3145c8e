// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// DefaultPageSize is the number of keys asked for at once. etcd counts the rest of the range for
// every page, so small pages make a list quadratic; one page of everything costs memory.
const DefaultPageSize = 20_000

// ErrStoreChanged means that another store answered than before: one that was wiped, restored,
// or does not belong to the same cluster.
var ErrStoreChanged = errors.New("another store answered than before")

// ListOptions say how to list. The zero value lists values at the newest revision.
type ListOptions struct {
	PageSize int   // keys per page; 0 means DefaultPageSize
	Revision int64 // 0: the newest
	KeysOnly bool
	exact    bool // the prefix is one key
}

// List is what stood under a prefix at one revision, in order of the keys.
type List struct {
	Revision  int64
	ClusterID uint64
	KVs       []KV
}

// List reads all keys with a prefix at one revision.
func (c *Client) List(ctx context.Context, prefix string, opts ListOptions) (List, error) {
	var l List
	rev, id, err := c.pages(ctx, prefix, opts, func(page []KV) { l.KVs = append(l.KVs, page...) })
	if err != nil {
		return List{}, err
	}
	l.Revision, l.ClusterID = rev, id
	return l, nil
}

// pages hands each page of a list to fn and returns the revision all of them are of.
func (c *Client) pages(ctx context.Context, prefix string, opts ListOptions, fn func([]KV)) (
	revision int64, clusterID uint64, err error,
) {
	if c.limit != nil { // once per list, not per page
		if err := c.limit.Wait(ctx); err != nil {
			return 0, 0, fmt.Errorf("list %s: %w", prefix, err)
		}
	}
	limit := opts.PageSize
	if limit <= 0 {
		limit = DefaultPageSize
	}
	revision = opts.Revision
	end := clientv3.GetPrefixRangeEnd(prefix)
	for from := prefix; ; {
		o := []clientv3.OpOption{clientv3.WithLimit(int64(limit)), clientv3.WithRev(revision)}
		if !opts.exact {
			o = append(o, clientv3.WithRange(end))
		}
		if opts.KeysOnly {
			o = append(o, clientv3.WithKeysOnly())
		}
		var resp *clientv3.GetResponse
		err := c.request(ctx, "list "+prefix, func(ctx context.Context) (err error) {
			resp, err = c.etcd.Get(ctx, from, o...)
			return err
		})
		if err != nil && tooLarge(err) && limit > 1 {
			limit /= 2
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		if clusterID == 0 {
			clusterID = resp.Header.ClusterId
		}
		if revision == 0 {
			revision = resp.Header.Revision
		}
		if resp.Header.ClusterId != clusterID || resp.Header.Revision < revision {
			return 0, 0, fmt.Errorf("list %s: %w between two pages", prefix, ErrStoreChanged)
		}
		page := make([]KV, len(resp.Kvs))
		for i, kv := range resp.Kvs {
			page[i] = kvOf(kv)
		}
		fn(page)
		if !resp.More || len(page) == 0 {
			return revision, clusterID, nil
		}
		from = page[len(page)-1].Key + "\x00"
	}
}

// tooLarge reports whether an answer exceeded the largest message.
func tooLarge(err error) bool {
	return strings.Contains(err.Error(), "larger than max") &&
		(status.Code(err) == codes.ResourceExhausted || strings.Contains(err.Error(), "ResourceExhausted"))
}
