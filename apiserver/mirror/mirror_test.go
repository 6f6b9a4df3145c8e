// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// The copy is the remote's rows, byte for byte, and follows them; what is said of it is true.
func TestMirror_CopiesAndFollows(t *testing.T) {
	t.Parallel()
	s, far := newSide(t), newRemote(t, "far", 2)
	far.fill()
	far.put(schema.HeartbeatKey, "2026-01-02T15:04:05Z")
	s.knows("far", far.ClientConfig())
	s.start("one", nil)
	s.wantCopy(far)
	row := s.says("far", complete)
	if row.ID != 2 || row.Rows != 8 || row.By != "one" || row.Epoch != strings.Repeat("ab", 16) || row.Confirmed.IsZero() || row.Heartbeat.IsZero() || row.Written.Before(row.Confirmed) {
		t.Errorf("said of the copy: %+v", row)
	}
	key := far.address(1, 7)
	far.del(far.service("web"))
	s.wantCopy(far)
	far.put(key, strings.Replace(far.copied()[schema.MirrorPrefix("far", schema.ResourceIPs)+"10.2.1.7"], `"Later":7`, `"Later": 8`, 1))
	s.wantCopy(far) // the row means the same, and has other bytes

	// What somebody does to the copy is put right.
	s.Delete(s.client, schema.MirrorPrefix("far", schema.ResourceNodes)+"n1")
	s.Put(s.client, schema.MirrorPrefix("far", schema.ResourceNodes)+"n9", "{}")
	s.Put(s.client, schema.ClusterConfigPrefix+"far", `{"id":9,"capabilities":{}}`)
	s.Commit(s.client, clientv3.OpDelete(schema.SyncedPrefix+"far/", clientv3.WithPrefix()))
	kvstoretest.Eventually(t, func() string { // n9 is nobody's: the store's owner takes it away when it begins anew
		if got := s.under(schema.MirrorPrefix("far", schema.ResourceNodes) + "n1"); len(got) != 1 {
			return fmt.Sprintf("n1: %v", got)
		}
		return s.lacksMarks(far)
	})
	if got := s.under(schema.ClusterConfigPrefix + "own"); !strings.Contains(fmt.Sprint(got), `"id":1`) {
		t.Errorf("our own cluster-config is now %v", got)
	}
}

// What a remote may not say is not copied, and what it said before stays.
func TestMirror_RemoteSpeaksForItselfOnly(t *testing.T) {
	t.Parallel()
	s, far, m, _ := newCopied(t)
	want := far.copied()
	far.put(schema.NodesPrefix+"other/n1", want[schema.MirrorPrefix("far", schema.ResourceNodes)+"n1"])
	far.put(schema.ServicesPrefix+"own/default/web", "{}")
	far.put(schema.NodesPrefix+"far/n3", `{"Name":"n3","Cluster":"own","ClusterID":1}`)
	far.put(schema.NodesPrefix+"far/n1", `{"Name":"n1","Cluster":"own","ClusterID":1}`)
	far.put(schema.IdentityMasterKey(1<<16+5), "k8s:"+schema.ClusterLabelKey+"=own;")
	far.put(schema.IPsPrefix+"10.99.0.1", `{"IP":"10.99.0.1","Mask":null,"HostIP":"172.16.2.1","ID":131077}`)
	far.put(schema.CachePrefix+"nodes/v1/third/n1", "{}")
	far.put(schema.IPsPrefix+"not/an/address", "{}")
	kvstoretest.Eventually(t, func() string {
		faults := 0
		for _, r := range m.Status().Remotes[0].Resources {
			faults += r.Faults
		}
		if faults != 5 {
			return fmt.Sprintf("%d rows refused: %+v", faults, m.Status().Remotes[0].Resources)
		}
		return ""
	})
	far.address(2, 9) // a good one after them
	want[schema.MirrorPrefix("far", schema.ResourceIPs)+"10.2.2.9"] = far.copied()[schema.MirrorPrefix("far", schema.ResourceIPs)+"10.2.2.9"]
	kvstoretest.Eventually(t, func() string {
		if diff := cmp.Diff(want, s.under(schema.CachePrefix)); diff != "" {
			return "copies (-want +got):\n" + diff
		}
		return ""
	})
}

// Endpoint slices are copied where the remote says that it has them.
func TestMirror_EndpointSlices(t *testing.T) {
	t.Parallel()
	s, far := newSide(t), newRemote(t, "far", 2)
	far.config(`{"id":2,"capabilities":{"endpointSlicesExportMode":"services-and-endpointslices","serviceExportsEnabled":true}}`)
	far.fill()
	packed := "\x28\xb5\x2f\xfd\x00packed"
	far.put(schema.EndpointSlicesPrefix+"far/default/web-1", packed)
	far.put(schema.EndpointSlicesPrefix+"far/default/web-2", "{}")
	s.knows("far", far.ClientConfig())
	s.start("one", nil)
	s.says("far", complete)
	prefix := schema.MirrorPrefix("far", schema.ResourceEndpointSlices)
	if diff := cmp.Diff(map[string]string{prefix + "default/web-1": packed}, s.under(prefix)); diff != "" {
		t.Errorf("slices (-want +got):\n%s", diff)
	}
	kvstoretest.Eventually(t, func() string {
		if marks := s.under(schema.SyncedPrefix + "far/"); len(marks) != 5 {
			return fmt.Sprintf("marks %v", marks)
		}
		return ""
	})
	// Service exports are not copied, so nobody may wait for their mark.
	want := `{"id":2,"capabilities":{"syncedCanaries":true,"cached":true,"endpointSlicesExportMode":"services-and-endpointslices"}}`
	if got := s.under(schema.ClusterConfigPrefix + "far")[schema.ClusterConfigPrefix+"far"]; got != want {
		t.Errorf("cluster-config %s, want %s", got, want)
	}
}

// A remote that calls itself by another id begins anew: nothing of the one stands beside the other.
func TestMirror_RemoteChangesItsID(t *testing.T) {
	t.Parallel()
	s, far, _, _ := newCopied(t)
	far.Commit(far.client, clientv3.OpDelete(schema.StatePrefix, clientv3.WithPrefix()))
	far.id = 3
	far.config(`{"id":3,"capabilities":{}}`)
	far.fill()
	s.wantCopy(far)
	s.says("far", func(m schema.Mirror) bool { return complete(m) && m.ID == 3 })
}

// Cilium's mirror and ours never write both: they stand for one office, and the oldest has it.
func TestMirror_WaitsForCiliums(t *testing.T) {
	t.Parallel()
	s, far := newSide(t), newRemote(t, "far", 2)
	far.fill()
	s.knows("far", far.ClientConfig())
	session, err := concurrency.NewSession(s.client.Etcd(), concurrency.WithTTL(30))
	if err != nil {
		t.Fatal(err)
	}
	lock := concurrency.NewMutex(session, strings.TrimSuffix(schema.MirrorElectionsPrefix, "/"))
	if err := lock.Lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	m, _ := s.start("one", nil)
	kvstoretest.Eventually(t, func() string {
		if st := m.Status(); len(st.Remotes) != 1 || !st.Remotes[0].Connected {
			return "the remote is not read"
		}
		if got := s.under(schema.MirrorElectionsPrefix); len(got) != 2 {
			return fmt.Sprintf("candidates %v", got)
		}
		return ""
	})
	s.always("nothing is written", func() bool { return len(s.under(schema.CachePrefix)) == 0 && !m.Leading() })
	if err := session.Close(); err != nil {
		t.Fatal(err)
	}
	s.wantCopy(far)
	// And Cilium's waits for ours.
	other, err := concurrency.NewSession(s.client.Etcd(), concurrency.WithTTL(30))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := concurrency.NewMutex(other, strings.TrimSuffix(schema.MirrorElectionsPrefix, "/")).TryLock(t.Context()); err == nil {
		t.Error("the lock is free while our mirror leads")
	}
}
