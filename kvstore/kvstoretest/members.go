// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstoretest

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/internal/loopback"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/embedded"
)

// Members is a store of several members, without encryption. It ends with the test. The tests of a
// package that has one run under Patient.
type Members struct {
	t     testing.TB
	all   []*embedded.Server
	alive []bool
}

// StartMembers runs a store of n members until the test ends. Of opts it takes QuotaBytes.
func StartMembers(t testing.TB, n int, opts Options) *Members {
	t.Helper()
	cluster := map[string]string{}
	for i := range n {
		cluster[fmt.Sprintf("m%d", i)] = "http://" + loopback.Free(t)
	}
	m := &Members{t: t, all: make([]*embedded.Server, n), alive: make([]bool, n)}
	t.Cleanup(func() {
		var wg sync.WaitGroup
		for i := range m.all {
			wg.Go(func() { m.Kill(i) })
		}
		wg.Wait()
	})
	var g errgroup.Group
	for i := range m.all {
		name := fmt.Sprintf("m%d", i)
		cfg := embedded.Config{
			Name: name, Dir: filepath.Join(t.TempDir(), name), ClientURL: "http://" + loopback.Free(t),
			PeerURL: cluster[name], Cluster: cluster, UnsafeNoFsync: true, QuotaBytes: opts.QuotaBytes,
		}
		g.Go(func() (err error) {
			m.all[i], err = embedded.Start(t.Context(), cfg)
			m.alive[i] = err == nil
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return m
}

// ClientConfig reaches all members.
func (m *Members) ClientConfig() kvstore.Config {
	cfg := kvstore.DefaultConfig()
	for _, s := range m.all {
		cfg.Endpoints = append(cfg.Endpoints, s.Endpoint())
	}
	return cfg
}

// Client returns a client of all members that ends with the test.
func (m *Members) Client() *kvstore.Client { return NewClient(m.t, m.ClientConfig()) }

// Member is one of them, counted from 0.
func (m *Members) Member(i int) *embedded.Server { return m.all[i] }

// Kill stops one member as a crash does. A member that is down stays so.
func (m *Members) Kill(i int) {
	if m.alive[i] {
		m.alive[i] = false
		m.all[i].Kill()
	}
}

// Restart starts members again that are down, at the same time.
func (m *Members) Restart(which ...int) {
	m.t.Helper()
	var g errgroup.Group
	for _, i := range which {
		g.Go(func() error {
			err := m.all[i].Restart(m.t.Context())
			m.alive[i] = err == nil
			return err
		})
	}
	if err := g.Wait(); err != nil {
		m.t.Fatal(err)
	}
}

// Patient is the tests of a package whose members' connections to each other etcd gives up only some
// seconds after they are killed. It is what goleak.VerifyTestMain is given.
type Patient struct{ *testing.M }

// Run runs the tests and waits.
func (p Patient) Run() int {
	code := p.M.Run()
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end) && goleak.Find() != nil; {
	}
	return code
}
