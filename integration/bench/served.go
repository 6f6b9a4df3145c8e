// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/kvstore"
)

// served is an etcd with servers before it and clients at each, all processes of their own.
type served struct {
	dir     string
	files   pki
	writer  *kvstore.Client
	tasks   map[string]serveTask // by kind
	servers map[string]*child
	clients map[string]*child
	put     int // keys that were written so far
}

// newServed starts the etcd and no other server.
func newServed(ctx context.Context) (_ *served, err error) {
	s := &served{tasks: map[string]serveTask{}, servers: map[string]*child{}, clients: map[string]*child{}}
	if s.dir, err = os.MkdirTemp("", "weft-bench-"); err != nil {
		return nil, err
	}
	if s.files, err = newPKI(filepath.Join(s.dir, "pki")); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if err := s.serve(ctx, kindEtcd); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if s.writer, err = kvstore.New(s.files.client(s.etcd()), slog.New(slog.DiscardHandler)); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// etcd is the etcd's URL.
func (s *served) etcd() string { return "https://" + s.tasks[kindEtcd].Address }

// close ends all processes and removes what they left.
func (s *served) close() error {
	var errs []error
	if s.writer != nil {
		errs = append(errs, s.writer.Close())
	}
	for _, c := range s.clients {
		errs = append(errs, c.stop())
	}
	for kind, c := range s.servers {
		if kind != kindEtcd {
			errs = append(errs, c.stop())
		}
	}
	if c := s.servers[kindEtcd]; c != nil {
		errs = append(errs, c.stop())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// serve starts a server, one that was killed where it was.
func (s *served) serve(ctx context.Context, kind string) error {
	task, known := s.tasks[kind]
	if !known {
		address, err := freeAddress()
		if err != nil {
			return err
		}
		task = serveTask{Kind: kind, Address: address, Etcd: s.etcd(), Dir: s.dir, Files: s.files}
		s.tasks[kind] = task
	}
	c, err := startTask(ctx, "serve", task, &serveAnswer{})
	if err == nil {
		s.servers[kind] = c
	}
	return err
}

// freeAddress is an address:port that nobody listens on, below the ports that Linux begins connections
// at (32768): nobody gets it while a server that had it is down.
func freeAddress() (string, error) {
	for {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.N(22000)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return "", err
		}
		return l.Addr().String(), l.Close()
	}
}

// startTask starts a worker with a task.
func startTask(ctx context.Context, role string, task, ready any) (*child, error) {
	arg, err := json.Marshal(task)
	if err != nil {
		return nil, err
	}
	return startChild(ctx, ready, role, string(arg))
}

// kill ends a server as a crash does.
func (s *served) kill(kind string) {
	s.servers[kind].kill()
	delete(s.servers, kind)
}

// open sees to it that n clients watch what is served by kind.
func (s *served) open(ctx context.Context, kind string, n int) error {
	if s.clients[kind] == nil {
		if err := s.attend(ctx, kind, watchPrefix(kind)); err != nil {
			return err
		}
	}
	return s.clients[kind].ask(fmt.Sprint("open ", n), &watchAnswer{})
}

// attend starts a process of clients that look at a prefix of what is served by kind.
func (s *served) attend(ctx context.Context, kind, prefix string) error {
	task := watchTask{Address: s.tasks[kind].Address, Prefix: prefix, Files: s.files}
	c, err := startTask(ctx, "watch", task, &watchAnswer{})
	if err == nil {
		s.clients[kind] = c
	}
	return err
}

// fill writes keys, of the size of ip rows, until there are n under a prefix that has so many.
func (s *served) fill(ctx context.Context, prefix string, has, n int) error {
	return atOnce(putsAtOnce, n-has, func(i int) error {
		_, err := s.writer.Put(ctx, watchKey(prefix, has+i), watchValue(time.Now()), 0)
		return err
	})
}

// putsAtOnce bounds how many puts are on their way.
const putsAtOnce = 64

// write has n events happen where a server's clients look, so many a second.
func (s *served) write(ctx context.Context, kind string, n, perSecond int) error {
	if kind == kindFloor {
		return s.servers[kind].ask(fmt.Sprintf("write %d %d", n, perSecond), &serveAnswer{})
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(putsAtOnce)
	err := paced(ctx, n, perSecond, func(int) error {
		key := watchKey(watchPrefix(kind), s.put)
		s.put++
		g.Go(func() error {
			_, err := s.writer.Put(ctx, key, watchValue(time.Now()), 0)
			return err
		})
		return nil
	})
	return errors.Join(g.Wait(), err)
}

// slot is what a server needed to tell its clients of some events.
type watchSlot struct {
	cpu      float64 // seconds of the server for each event that was delivered
	etcd     float64 // seconds of the etcd for each event that was written
	p50, p99 float64 // seconds from before the put until a client had it
}

// slot writes n events and waits until each of the clients has all.
func (s *served) slot(ctx context.Context, kind string, clients, n, perSecond int) (watchSlot, error) {
	fail := func(err error) (watchSlot, error) {
		return watchSlot{}, fmt.Errorf("%d clients of %s: %w", clients, kind, err)
	}
	line := fmt.Sprint("expect ", clients*n)
	if err := s.clients[kind].tell(line); err != nil {
		return fail(err)
	}
	cpu, err := s.servers[kind].cpu()
	if err != nil {
		return fail(err)
	}
	etcd, err := s.servers[kindEtcd].cpu()
	if err != nil {
		return fail(err)
	}
	if err := s.write(ctx, kind, n, perSecond); err != nil {
		return fail(err)
	}
	var a watchAnswer
	if err := s.clients[kind].answer(line, &a); err != nil {
		return fail(err)
	}
	if a.Events != int64(clients*n) {
		return fail(fmt.Errorf("%d events came, want %d", a.Events, clients*n))
	}
	cpuAfter, err := s.servers[kind].cpu()
	if err != nil {
		return fail(err)
	}
	etcdAfter, err := s.servers[kindEtcd].cpu()
	if err != nil {
		return fail(err)
	}
	return watchSlot{
		cpu: (cpuAfter - cpu).Seconds() / float64(clients*n), etcd: (etcdAfter - etcd).Seconds() / float64(n),
		p50: a.P50.Seconds(), p99: a.P99.Seconds(),
	}, nil
}
