// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/weft-net/weft/integration/lab"
	"github.com/weft-net/weft/internal/netns"
	"github.com/weft-net/weft/kvstore"
)

// storeAnswer bounds one question to a store that is expected to answer.
const storeAnswer = 5 * time.Second

// storeClient is a stock client of a lab's store, with all rights. Its connections belong to the
// store's own namespace, so no cut of the lab concerns it.
func storeClient(t *testing.T, c lab.Cluster) *clientv3.Client {
	t.Helper()
	ns, err := netns.Open(c.Etcd.Netns)
	if err != nil {
		t.Fatal(err)
	}
	file, err := kvstore.ReadConfigFile(c.EtcdConfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: file.Endpoints, TLS: adminTLS(t, c), Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, addr string) (conn net.Conn, err error) {
			err = ns.Do(func() (err error) {
				var d net.Dialer
				conn, err = d.DialContext(ctx, "tcp", addr)
				return err
			})
			return conn, err
		})},
	})
	if err != nil {
		ns.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		ns.Close()
	})
	return client
}

func adminTLS(t *testing.T, c lab.Cluster) *tls.Config {
	t.Helper()
	ca, err := os.ReadFile(c.CA)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(c.AdminCert, c.AdminKey)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}
}

// storeRows are the rows of a store below a prefix, by what follows it, with the revision of each.
func storeRows(ctx context.Context, c *clientv3.Client, prefix string) (map[string]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, storeAnswer)
	defer cancel()
	got, err := c.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	rows := map[string]int64{}
	for _, kv := range got.Kvs {
		rows[string(kv.Key[len(prefix):])] = kv.ModRevision
	}
	return rows, nil
}
