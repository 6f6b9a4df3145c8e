// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// storeQuota is how large the stores of these labs may get, bytes.
const storeQuota = 16 << 20

// storeFaults are those in which a cluster's store loses or refuses something.
func storeFaults(cluster string) []fault {
	return []fault{
		{name: "etcd wiped", store: cluster, breaking: labs([]string{"store", "wipe", cluster})},
		{name: "etcd wiped, another id", store: cluster, long: true, breaking: labs([]string{"store", "wipe", "--new-id", cluster})},
		{name: "an old snapshot", store: cluster, before: afterSnapshot((*trial).save), breaking: labs([]string{"store", "rollback", cluster})},
		{
			name: "a restored backup", store: cluster, before: afterSnapshot((*trial).backup),
			breaking: func(t *trial) { t.m.lab("store", "restore", "--from", t.file, cluster) },
		},
		{name: "del --prefix cilium/", store: cluster, long: true, breaking: deletePrefix("cilium/")},
		{name: "del --prefix weft/", store: cluster, long: true, breaking: deletePrefix("weft/")},
		{name: "NOSPACE", store: cluster, before: spares(1), breaking: fillUp, heal: relieve},
		{name: "compacted under watches that are behind", store: cluster, before: spares(1), breaking: compact, heal: catchUp},
	}
}

// remoteFaults are those in which the store of the other cluster does: who reads it knows nothing of what
// happened there but what the store says.
func remoteFaults(cluster string) []fault {
	all := storeFaults(cluster)
	for i, f := range all {
		all[i].long = f.name != "etcd wiped" && f.name != "an old snapshot"
		all[i].name = "the remote's store: " + f.name
	}
	return all
}

// afterSnapshot takes a copy of the store; after that one endpoint ends and another begins.
func afterSnapshot(take func(*trial)) func(*trial) {
	return func(t *trial) {
		node := t.cluster.Nodes[0]
		old := t.addSpares(node, 1)
		t.waitHere(old)
		t.waitStored(old[0].Addresses[0].String())
		take(t)
		t.drop(old)
		t.waitGone(old)
		t.waitHere(t.addSpares(node, 1))
		t.m.waitEqual("before the snapshot comes back")
	}
}

// waitStored waits until the store has the row of an address.
func (t *trial) waitStored(addr string) {
	t.m.t.Helper()
	waitFor(t.m.t, "the row of "+addr, func() bool {
		got, err := t.m.client(t.cluster).Get(t.m.t.Context(), "cilium/state/ip/v1/default/"+addr)
		return err == nil && len(got.Kvs) == 1
	})
}

func (t *trial) save() { t.m.lab("store", "save", t.cluster.Name) }

func (t *trial) backup() {
	t.file = filepath.Join(t.m.t.TempDir(), "backup") // one is never written over another one
	t.m.lab("exec", "etcd/"+t.cluster.Name, "--", t.m.bin, "store", "backup", t.file, "--etcd", t.cluster.EtcdConfig)
}

// deletePrefix is somebody with all rights and a wrong idea.
func deletePrefix(prefix string) func(*trial) {
	return func(t *trial) {
		t.m.t.Helper()
		got, err := t.m.client(t.cluster).Delete(t.m.t.Context(), prefix, clientv3.WithPrefix())
		if err != nil {
			t.m.t.Fatal(err)
		}
		if got.Deleted == 0 {
			t.m.t.Fatalf("nothing below %s", prefix)
		}
	}
}

// junk is a prefix that nobody watches.
const junk = "junk/"

// fillUp writes until the store refuses, and then deletes a spare: a full store takes deletions.
func fillUp(t *trial) {
	t.m.t.Helper()
	value := strings.Repeat("x", 512<<10)
	for n := 0; ; n++ {
		ctx, cancel := context.WithTimeout(t.m.t.Context(), patience)
		_, err := t.m.client(t.cluster).Put(ctx, fmt.Sprintf("%s%d", junk, n), value)
		cancel()
		if errors.Is(err, rpctypes.ErrNoSpace) {
			break
		}
		if err != nil {
			t.m.t.Fatal(err)
		}
	}
	t.drop(t.spares)
	t.waitGone(t.spares)
}

// relieve takes the way out that weft names.
func relieve(t *trial) {
	t.m.t.Helper()
	deletePrefix(junk)(t)
	t.m.lab("exec", "etcd/"+t.cluster.Name, "--", t.m.bin, "store", "relieve", "--yes", "--etcd", t.cluster.EtcdConfig)
}

// compact cuts a node off, deletes what it knows, and forgets the history.
func compact(t *trial) {
	t.m.t.Helper()
	t.m.lab("cut", "store/"+t.cluster.Nodes[1].Name)
	t.drop(t.spares)
	t.waitGone(t.spares, t.cluster.Nodes[0].Name)
	client := t.m.client(t.cluster)
	waitFor(t.m.t, "end of the spare's row", func() bool {
		got, err := client.Get(t.m.t.Context(), "cilium/state/ip/v1/default/"+t.spares[0].Addresses[0].String())
		if err != nil || len(got.Kvs) > 0 {
			return false
		}
		_, err = client.Compact(t.m.t.Context(), got.Header.Revision)
		return err == nil
	})
}

// catchUp lets the node back in while the history is forgotten again and again, also during its lists.
func catchUp(t *trial) {
	t.m.t.Helper()
	t.m.lab("heal", "store/"+t.cluster.Nodes[1].Name)
	client := t.m.client(t.cluster)
	waitFor(t.m.t, "end of the spare on the node that was cut off", func() bool {
		ctx := t.m.t.Context()
		if put, err := client.Put(ctx, junk+"0", "x"); err == nil {
			client.Compact(ctx, put.Header.Revision) //nolint:errcheck // somebody else was faster
		}
		return !t.has(t.cluster.Nodes[1].Name, t.spares[0].Addresses[0].String())
	})
}
