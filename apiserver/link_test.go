// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"crypto/tls"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// TestLink_EndsWithTheCertificate lets a client's certificate expire under a watch.
func TestLink_EndsWithTheCertificate(t *testing.T) {
	f := newFixture(t, nil)
	config := f.tls(t, "remote")
	certFile, keyFile := f.ca.Issue(t, "remote", 3*time.Second)
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	config.Certificates = []tls.Certificate{cert}
	st := openWatch(t, dial(t, f.address, grpc.WithTransportCredentials(credentials.NewTLS(config))))
	send(t, st, state(0))
	next(t, st)
	if _, err := st.Recv(); err == nil {
		t.Fatal("something was told")
	}
	if time.Now().Before(cert.Leaf.NotAfter) {
		t.Error("the stream ended before the certificate did")
	}
	// A handshake that was before does not help.
	l := &link{cert: cert.Leaf}
	if !l.expired(time.Now()) {
		t.Error("an expired certificate is taken for a good one")
	}
}

// TestLink_IsCounted opens more connections than a user may have.
func TestLink_IsCounted(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Limits.Connections = 2 })
	ask := func(c *grpc.ClientConn) error {
		_, err := pb.NewClusterClient(c).MemberList(t.Context(), &pb.MemberListRequest{})
		return err
	}
	first := f.dial(t, "remote")
	for i, c := range []*grpc.ClientConn{first, f.dial(t, "remote"), f.dial(t, "remote"), f.dial(t, "remote-west")} {
		want := codes.OK
		if i == 2 {
			want = codes.Unavailable
		}
		if err := ask(c); status.Code(err) != want {
			t.Errorf("connection %d: %v, want %v", i, err, want)
		}
	}
	if f.api.refused.Load() == 0 {
		t.Error("nothing was counted")
	}
	first.Close()
	kvstoretest.Eventually(t, func() string {
		c := f.dial(t, "remote")
		defer c.Close()
		if err := ask(c); err != nil {
			return err.Error()
		}
		return ""
	})
}
