// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/apiserver"
	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/internal/netns"
	"github.com/weft-net/weft/kvstore"
)

// serverTimeout bounds one question to an API server. One that is frozen never answers.
const serverTimeout = 5 * time.Second

// serverName is what the files, the bridge port and the log of a cluster's API server are called.
func serverName(i int) string { return "api" + strconv.Itoa(i+1) }

// serverProcess is the name of an API server's process: apiserver/<cluster> is the first,
// apiserver/<cluster>/2 the second.
func serverProcess(c *Cluster, i int) string {
	if i == 0 {
		return "apiserver/" + c.Name
	}
	return "apiserver/" + c.Name + "/" + strconv.Itoa(i+1)
}

// server finds one by the name of its process without apiserver/.
func (l *Lab) server(name string) (*Cluster, int, error) {
	name, number, several := strings.Cut(name, "/")
	c, err := l.cluster(name)
	if err != nil {
		return nil, 0, err
	}
	if !several {
		number = "1"
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > len(c.APIServers) {
		return nil, 0, fmt.Errorf("no API server %s of %s; it has %d", number, c.Name, len(c.APIServers))
	}
	return c, n - 1, nil
}

// serverAddr is where an API server is reached.
func (l *Lab) serverAddr(c *Cluster, i int) netip.AddrPort {
	return netip.AddrPortFrom(addressing{l.Family, int(c.ID)}.control(hostServer+i), serverPort)
}

func (l *Lab) serverURL(c *Cluster, i int) string { return "https://" + l.serverAddr(c, i).String() }

func serverConfig(c *Cluster, i int) string {
	return filepath.Join(c.dir(), serverName(i)+".yaml")
}

// writeServers writes what API servers read, and the certificate of a reader of this cluster: with API
// servers the lab's own, as the other clusters get theirs when they join; otherwise theirs. The authority
// that signs readers of API servers is one that the etcd does not know: so nobody passes them by.
func (l *Lab) writeServers(c *Cluster, by *issuer) error {
	dir := c.dir()
	if err := by.reader(dir, "remote", kvstore.UserRemote, len(c.APIServers) == 0); err != nil {
		return err
	}
	if len(c.APIServers) == 0 {
		return nil
	}
	if err := by.user(dir, "apiserver-etcd", kvstore.UserAPIServer(c.Name)); err != nil {
		return err
	}
	etcd := filepath.Join(dir, "apiserver-etcd.yaml")
	if err := writeEtcdClient(etcd, c.endpoints(), c.CA, dir, "apiserver-etcd"); err != nil {
		return err
	}
	if err := os.Mkdir(c.mesh(), 0o700); err != nil { // keys will lie in it
		return err
	}
	var replicas []apiserver.Replica
	for i := range c.APIServers {
		replicas = append(replicas, apiserver.Replica{Name: serverName(i), URLs: []string{l.serverURL(c, i)}})
	}
	for i := range c.APIServers {
		at := l.serverAddr(c, i)
		if err := by.server(dir, serverName(i), trust.Server{
			Name: "apiserver." + c.Name, Hosts: []string{at.Addr().String()}, Cluster: c.Name,
		}); err != nil {
			return err
		}
		cert, key := pair(dir, serverName(i))
		if err := writeYAML(serverConfig(c, i), map[string]any{
			"name": serverName(i), "cluster": c.Name, "cluster-id": c.ID, "etcd": etcd, "listen": at.String(),
			"clustermesh-dir": c.mesh(), "state-dir": filepath.Join(dir, serverName(i)+"-state"),
			"ca": c.CA, "cert": cert, "key": key, "replicas": replicas, "join": l.serverJoin(c, i),
		}); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) startServers(ctx context.Context) error {
	return each(ctx, len(l.Clusters), func(ctx context.Context, k int) error {
		c := &l.Clusters[k]
		for i := range c.APIServers {
			if err := l.startServer(c, i); err != nil {
				return err
			}
		}
		for i := range c.APIServers {
			if err := l.waitServer(ctx, c, i); err != nil {
				return err
			}
		}
		return nil
	})
}

func (l *Lab) startServer(c *Cluster, i int) error {
	return l.start(&c.APIServers[i], "apiserver", "--config", serverConfig(c, i))
}

// waitServer waits until an API server answers, or listens where its etcd is away and it has nothing to
// answer with.
func (l *Lab) waitServer(ctx context.Context, c *Cluster, i int) error {
	return l.waitReady(ctx, &c.APIServers[i], func() bool {
		_, err := l.askServer(ctx, c, i)
		return err == nil || errors.Is(err, errUnread) && (!c.quorum() || slices.Contains(l.cuts(), "etcd/"+c.Name))
	})
}

// errUnread is an API server that has not read its etcd yet.
var errUnread = errors.New("it has not read the store yet")

// judgeServer says how an API server is that runs.
func (l *Lab) judgeServer(ctx context.Context, c *Cluster, i int, j *Judged) {
	complaints, err := l.askServer(ctx, c, i)
	if err != nil {
		complaints = []string{err.Error()}
	}
	j.Reason = strings.Join(complaints, "; ")
	j.Healthy = j.Reason == ""
}

// askServer asks an API server, as another cluster does, what it has to complain of.
func (l *Lab) askServer(ctx context.Context, c *Cluster, i int) (complaints []string, err error) {
	cfg, err := remoteTLS(c)
	if err != nil {
		return nil, err
	}
	ns, err := netns.Open(c.APIServers[i].Netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	conn, err := grpc.NewClient("passthrough:///"+l.serverAddr(c, i).String(),
		grpc.WithTransportCredentials(credentials.NewTLS(cfg)),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (conn net.Conn, err error) {
			err = ns.Do(func() (err error) {
				var d net.Dialer
				conn, err = d.DialContext(ctx, "tcp", addr)
				return err
			})
			return conn, err
		}))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, serverTimeout)
	defer cancel()
	st, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		if text := status.Convert(err).Message(); strings.Contains(text, "was not read yet") {
			return nil, errUnread
		}
		return nil, err
	}
	return st.Errors, nil
}

// remoteTLS are the settings of a client of another cluster.
func remoteTLS(c *Cluster) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(c.RemoteCert, c.RemoteKey)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, MinVersion: tls.VersionTLS13}, nil
}
