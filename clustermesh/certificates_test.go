// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"fmt"
	"testing"
	"time"

	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// TestMesh_CertificateEnds: the status tells how long the certificates of a remote's connection are good,
// also when it is away.
func TestMesh_CertificateEnds(t *testing.T) {
	t.Parallel()
	s := kvstoretest.Start(t, kvstoretest.Options{CA: kvstoretest.NewCA(t, "ca"), Name: "etcd"})
	far := &cluster{s, t, "far", 2, s.Client()}
	far.config(schema.ClusterConfig{ID: 2})
	far.fill(2)
	b := newBench(t, nil)
	b.add("far", s.ClientConfig())
	b.wantRows("far", one)
	ours, err := s.ClientConfig().CertificateEnd()
	if err != nil {
		t.Fatal(err)
	}
	known := b.remote("far").Certificates
	if !known.Ours.Equal(ours) || time.Until(known.Server) <= 0 {
		t.Errorf("certificates %+v, want ours until %v", known, ours)
	}
	s.Kill()
	kvstoretest.Eventually(t, func() string {
		if st := b.remote("far"); st.Connected {
			return "connected"
		}
		return ""
	})
	if got := b.remote("far").Certificates; got != known {
		t.Errorf("certificates %+v of one that is away, before %+v", got, known)
	}
}

// TestMesh_CertificateEndsOfACopy: who reads a copy tells what the mirror says.
func TestMesh_CertificateEndsOfACopy(t *testing.T) {
	t.Parallel()
	b, c := newCopied(t)
	far := newCluster(t, "far", 2)
	c.fillAs(farCopy, 2)
	c.complete()
	in := func(d time.Duration) time.Time { return time.Now().Add(d).UTC().Truncate(time.Second) }
	ours, server := in(time.Hour), in(2*time.Hour)
	c.says(schema.Mirror{
		ID: 2, Connected: true, Confirmed: time.Now(), Written: time.Now(), By: "own-1", Complete: true,
		OurCertificate: ours, ServerCertificate: server,
	})
	b.add("far", far.ClientConfig())
	b.reads(true)
	kvstoretest.Eventually(t, func() string {
		if got := b.remote("far").Certificates; !got.Ours.Equal(ours) || !got.Server.Equal(server) {
			return fmt.Sprintf("certificates %+v, want %v and %v", got, ours, server)
		}
		return ""
	})
}
