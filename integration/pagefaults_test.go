// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

const (
	// twoPages is how many identities make a list of more than one page.
	twoPages = kvstore.DefaultPageSize + 500
	// largeQuota is how large a store may get that has them, bytes.
	largeQuota = 128 << 20
	// inOne is how many operations etcd takes in a transaction.
	inOne = 128
)

// pageFaults are those of lists that a store answers in parts.
func pageFaults() []fault {
	return []fault{{
		name: "compacted during a list of several pages", store: "east", long: true, large: true,
		before: func(t *trial) {
			t.m.t.Helper()
			t.fillIdentities()
			t.m.waitEqual("with many identities")
		},
		breaking: compactLists,
	}}
}

// compactLists restarts an agent, so that it lists everything, while the history is forgotten again and
// again, until that was between two pages of a list.
func compactLists(t *trial) {
	t.m.t.Helper()
	node := t.cluster.Nodes[1]
	m, client := t.m, t.m.client(t.cluster)
	m.lab("kill", "agent/"+node.Name)
	info, err := os.Stat(node.Agent.Log)
	if err != nil {
		m.t.Fatal(err)
	}
	hit := func() bool {
		return logged(node.Agent.Log, info.Size(), "list "+schema.IdentityIDsPrefix, "compacted")
	}
	ctx, stop := context.WithTimeout(m.t.Context(), patience)
	var done sync.WaitGroup
	defer done.Wait()
	defer stop()
	done.Go(func() {
		for n := 1; ctx.Err() == nil && (n%10 != 0 || !hit()); n++ {
			if put, err := client.Put(ctx, junk+"0", "x"); err == nil {
				client.Compact(ctx, put.Header.Revision) //nolint:errcheck // somebody else was faster
			}
		}
	})
	m.lab("start", "agent/"+node.Name)
	waitFor(m.t, "a list that is compacted between two pages", hit)
}

// fillIdentities puts so many identities into the store of the cluster that a list of them has two pages.
func (t *trial) fillIdentities() {
	t.m.t.Helper()
	client := t.m.client(t.cluster)
	first := t.cluster.ID<<16 + 10_000 // far from those that are given out
	var ops []clientv3.Op
	for n := range uint32(twoPages) {
		labels := fmt.Sprintf("k8s:io.cilium.k8s.policy.cluster=%s;k8s:n=%d;", t.cluster.Name, n)
		ops = append(ops, clientv3.OpPut(schema.IdentityMasterKey(first+n), labels))
		if len(ops) == inOne || n == twoPages-1 {
			if _, err := client.Txn(t.m.t.Context()).Then(ops...).Commit(); err != nil {
				t.m.t.Fatal(err)
			}
			ops = nil
		}
	}
}

// logged says whether a line of a log after a place has all of these words.
func logged(file string, from int64, words ...string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return false
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return false
	}
lines:
	for line := range bytes.Lines(b) {
		for _, w := range words {
			if !bytes.Contains(line, []byte(w)) {
				continue lines
			}
		}
		return true
	}
	return false
}
