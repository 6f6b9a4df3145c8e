// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// TestBan_OfWhoIsConnected bans one cluster by its name and one certificate of another by its number:
// they are cut off and do not come back, nobody else notices, and a ban that is lifted is over.
func TestBan_OfWhoIsConnected(t *testing.T) {
	f := newFixture(t, nil)
	const key = "cilium/state/nodes/v1/east/a"
	patience := 10 * time.Second
	connect := func(cfg *tls.Config) (read func() error) {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + f.address}, TLS: cfg, Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return func() error {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err := c.Get(ctx, key)
			return err
		}
	}
	oldSouth := f.tls(t, "remote-south")
	leaf, err := x509.ParseCertificate(oldSouth.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	west, south, north := connect(f.tls(t, "remote-west")), connect(oldSouth), connect(f.tls(t, "remote-north"))
	for name, read := range map[string]func() error{"west": west, "south": south, "north": north} {
		if err := read(); err != nil {
			t.Fatalf("%s before the ban: %v", name, err)
		}
	}
	stream := openWatch(t, f.dial(t, "remote-west"))
	send(t, stream, &pb.WatchCreateRequest{Key: []byte(key)})
	if !next(t, stream).Created {
		t.Fatal("the watch was not created")
	}

	f.api.Ban(Bans{Users: map[string]bool{"remote-west": true}, Serials: map[string]bool{fmt.Sprintf("%x", leaf.SerialNumber): true}})
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream of a banned client has a message")
	}
	patience = 500 * time.Millisecond // a client goes on trying
	for name, read := range map[string]func() error{"by name": west, "by number": south} {
		if err := read(); err == nil {
			t.Errorf("banned %s, and let in", name)
		}
	}
	patience = 10 * time.Second
	if err := north(); err != nil {
		t.Errorf("who was not meant: %v", err)
	}
	if err := connect(f.tls(t, "remote-south"))(); err != nil {
		t.Errorf("with a certificate that was not meant: %v", err)
	}

	f.api.Ban(Bans{})
	kvstoretest.Eventually(t, func() string {
		if err := west(); err != nil {
			return err.Error()
		}
		return ""
	})
}
