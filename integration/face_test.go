// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/weft-net/weft/internal/loopback"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// face is a cluster's store with users and roles, and the processes of its API servers: what an
// administrator starts on machines, without the lab.
type face struct {
	t        *testing.T
	etcd     *kvstoretest.Server
	root     *kvstore.Client
	ca       *kvstoretest.CA
	dir      string
	replicas []*replica
}

// replica is one process of `weft apiserver`. A replica that was stopped starts again with the same
// file and at the same address.
type replica struct {
	f       *face
	name    string
	address string // of the API
	metrics string // of the metrics
	config  string // file
	log     string // file
	cmd     *exec.Cmd
	ended   chan error // nil: it does not run
}

// faceCluster is the cluster whose store it is.
const faceCluster = "east"

// newFace starts a store and so many API servers, and returns when all of them serve.
func newFace(t *testing.T, replicas int) *face {
	t.Helper()
	f := &face{t: t, ca: kvstoretest.NewCA(t, "east"), dir: t.TempDir()}
	f.etcd = kvstoretest.Start(t, kvstoretest.Options{CA: f.ca, Name: "etcd"})
	f.root = f.etcd.Client()
	if _, err := kvstore.Init(t.Context(), f.root, kvstore.InitConfig{Cluster: faceCluster, Remotes: []string{"west"}}); err != nil {
		t.Fatal(err)
	}
	cert, key := f.ca.Issue(t, kvstore.UserOperator(faceCluster), time.Hour)
	f.write("etcd.yaml", fmt.Sprintf("endpoints: [%s]\ntrusted-ca-file: %s\ncert-file: %s\nkey-file: %s\n",
		f.etcd.Endpoint(), f.ca.File, cert, key))
	cert, key = f.ca.Issue(t, "apiserver", time.Hour)
	for i := range replicas {
		name := fmt.Sprintf("east-%d", i+1)
		f.replicas = append(f.replicas, &replica{
			f: f, name: name, address: loopback.Free(t), metrics: loopback.Free(t),
			config: filepath.Join(f.dir, name+".yaml"), log: filepath.Join(f.dir, name+".log"),
		})
	}
	var list strings.Builder
	for _, r := range f.replicas {
		fmt.Fprintf(&list, "- {name: %s, urls: [https://%s]}\n", r.name, r.address)
	}
	for _, r := range f.replicas {
		f.write(r.name+".yaml", fmt.Sprintf("name: %s\ncluster: %s\netcd: %s\nlisten: %s\nmetrics: %s\nca: %s\ncert: %s\nkey: %s\nreplicas:\n%s",
			r.name, faceCluster, filepath.Join(f.dir, "etcd.yaml"), r.address, r.metrics, f.ca.File, cert, key, &list))
		r.start()
	}
	for _, r := range f.replicas {
		r.waitFresh()
	}
	return f
}

// write makes a file of the fixture and returns its path.
func (f *face) write(name, text string) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// put writes as the store's administrator.
func (f *face) put(key, value string) (revision int64) {
	f.t.Helper()
	revision, err := f.root.Put(f.t.Context(), key, []byte(value), 0)
	if err != nil {
		f.t.Fatal(err)
	}
	return revision
}

// tls are the settings of a client whose certificate has a name; "": it shows none.
func (f *face) tls(user string) *tls.Config {
	f.t.Helper()
	pem, err := os.ReadFile(f.ca.File)
	if err != nil {
		f.t.Fatal(err)
	}
	cfg := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	cfg.RootCAs.AppendCertsFromPEM(pem)
	if user != "" {
		cfg.Certificates = []tls.Certificate{certificate(f.t, f.ca, user, time.Hour)}
	}
	return cfg
}

// certificate is a fresh one of a CA.
func certificate(t *testing.T, ca *kvstoretest.CA, user string, valid time.Duration) tls.Certificate {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(ca.Issue(t, user, valid))
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// client is a stock client of one server.
func (f *face) client(cfg *tls.Config, endpoint string) *clientv3.Client {
	f.t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, TLS: cfg, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	return c
}

func (r *replica) url() string { return "https://" + r.address }

// start runs the process.
func (r *replica) start() {
	r.f.t.Helper()
	out, err := os.OpenFile(r.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.f.t.Fatal(err)
	}
	defer out.Close()
	r.cmd = exec.Command(build(r.f.t), "apiserver", "--config", r.config)
	r.cmd.Stdout, r.cmd.Stderr = out, out
	if err := r.cmd.Start(); err != nil {
		r.f.t.Fatal(err)
	}
	cmd, ended := r.cmd, make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	r.ended = ended
	r.f.t.Cleanup(func() {
		if r.ended == ended {
			r.stop(syscall.SIGKILL) //nolint:errcheck // it was killed
		}
		if r.f.t.Failed() {
			b, _ := os.ReadFile(r.log)
			r.f.t.Logf("--- %s\n%s", r.name, b)
		}
	})
}

// stop ends the process by a signal and returns how it ended.
func (r *replica) stop(s syscall.Signal) error {
	r.f.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.f.t.Fatal(err)
	}
	ended := r.ended
	r.ended = nil
	select {
	case err := <-ended:
		return err
	case <-time.After(patience):
		r.f.t.Fatalf("%s does not end", r.name)
		return nil
	}
}

// waitFresh waits until the replica follows the store.
func (r *replica) waitFresh() {
	r.f.t.Helper()
	c := r.f.client(r.f.tls(kvstore.UserRemote), r.url())
	defer c.Close()
	kvstoretest.Eventually(r.f.t, func() string {
		st, err := c.Status(r.f.t.Context(), r.url())
		if err != nil {
			return err.Error()
		}
		return strings.Join(st.Errors, "; ")
	})
}

// noRaces fails if the race detector spoke up in a process, or one panicked.
func (f *face) noRaces() {
	f.t.Helper()
	for _, r := range f.replicas {
		b, err := os.ReadFile(r.log)
		if err != nil {
			f.t.Fatal(err)
		}
		for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if strings.Contains(string(b), bad) {
				f.t.Fatalf("%s: %s", r.name, b)
			}
		}
	}
}
