// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// DefaultLeaseTTL is how long a node's rows outlive its agent, or its path to etcd.
const DefaultLeaseTTL = 15 * time.Minute

// ErrLeaseLost means that a lease expired, was revoked, or went with a store that was wiped.
var ErrLeaseLost = errors.New("the lease is lost")

// SessionConfig says how a lease is kept.
type SessionConfig struct {
	// TTL is how long the rows stay after the session ends. Default DefaultLeaseTTL. etcd counts
	// in seconds.
	TTL time.Duration
	// Refresh is the interval of keep-alives. Default a third of TTL, at most 30 s, so that a
	// lease that was revoked is noticed long before its time.
	Refresh time.Duration
	// Revoke ends the lease when Run ends, and with it the rows. A node does not: its rows must
	// outlive a restart of its agent. An election does.
	Revoke bool
	// MinBackoff and MaxBackoff bound the pause after an error. Defaults 50 ms and 5 s.
	MinBackoff, MaxBackoff time.Duration
}

func (c SessionConfig) withDefaults() SessionConfig {
	if c.TTL <= 0 {
		c.TTL = DefaultLeaseTTL
	}
	if c.Refresh <= 0 {
		c.Refresh = min(c.TTL/3, 30*time.Second)
	}
	if c.MinBackoff <= 0 {
		c.MinBackoff = 50 * time.Millisecond
	}
	if c.MaxBackoff <= 0 {
		c.MaxBackoff = 5 * time.Second
	}
	return c
}

// Lease is a lease with its number in the life of a session.
type Lease struct {
	ID clientv3.LeaseID
	// Generation is 1 for the first lease and grows by one with each that replaces a lost one.
	// 0: there is none.
	Generation uint64
}

// SessionStatus is what a session knows about itself.
type SessionStatus struct {
	Lease       Lease
	TTL         time.Duration
	Refreshed   time.Time // the store knew the lease at this time; it lives for TTL from then on
	LastError   error     // nil while refreshed
	LastErrorAt time.Time
}

// Session keeps a lease alive and takes a new one when it is lost. All keys of a session hang on
// one lease: etcd 3.6 and later take as long for a put on a lease with 50,000 keys as on one with
// none.
type Session struct {
	c   *Client
	cfg SessionConfig
	log *slog.Logger

	mu      sync.Mutex
	st      SessionStatus
	last    uint64        // generation of the last lease, lost or not
	changed chan struct{} // closed and replaced when the lease changes
	wake    chan struct{} // tells Run that somebody found the lease lost
}

// NewSession returns a session without a lease; Run takes one.
func NewSession(c *Client, cfg SessionConfig, log *slog.Logger) *Session {
	cfg = cfg.withDefaults()
	return &Session{
		c:       c,
		cfg:     cfg,
		log:     log,
		st:      SessionStatus{TTL: cfg.TTL},
		changed: make(chan struct{}),
		wake:    make(chan struct{}, 1),
	}
}

// Status returns what the session knows about itself.
func (s *Session) Status() SessionStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.st
}

// Current returns the lease, of generation 0 if there is none, and a channel that is closed when
// it changes.
func (s *Session) Current() (Lease, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.st.Lease, s.changed
}

// Wait returns the lease as soon as there is one.
func (s *Session) Wait(ctx context.Context) (Lease, error) {
	for {
		l, changed := s.Current()
		if l.Generation != 0 {
			return l, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if err := s.Status().LastError; err != nil {
				return Lease{}, fmt.Errorf("wait for a lease: %w (%w)", ctx.Err(), err)
			}
			return Lease{}, fmt.Errorf("wait for a lease: %w", ctx.Err())
		}
	}
}

// Lease is Wait in two numbers.
func (s *Session) Lease(ctx context.Context) (clientv3.LeaseID, uint64, error) {
	l, err := s.Wait(ctx)
	return l.ID, l.Generation, err
}

// Next waits for a lease of a generation after the one seen.
func (s *Session) Next(ctx context.Context, seen uint64) (clientv3.LeaseID, uint64, error) {
	for {
		l, changed := s.Current()
		if l.Generation > seen {
			return l.ID, l.Generation, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, 0, fmt.Errorf("wait for a new lease: %w", ctx.Err())
		}
	}
}

// Lost tells the session that the store does not know the lease of a generation. Whoever gets
// ErrLeaseNotFound from a put calls it, so that nobody waits for the next keep-alive.
func (s *Session) Lost(generation uint64) {
	s.mu.Lock()
	current := s.st.Lease.Generation == generation && generation != 0
	s.mu.Unlock()
	if current {
		s.set(Lease{}, time.Time{}, ErrLeaseLost)
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// set replaces the lease; one of generation 0 is none.
func (s *Session) set(l Lease, at time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteLocked(at, err)
	if s.st.Lease != l {
		s.st.Lease = l
		s.last = max(s.last, l.Generation)
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// Run keeps a lease until ctx ends.
func (s *Session) Run(ctx context.Context) error {
	defer s.end()
	pause := backoff{min: s.cfg.MinBackoff, max: s.cfg.MaxBackoff}
	for {
		err := s.round(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if !pause.pause(ctx, s.c) {
				return nil
			}
			continue
		}
		pause.reset()
		t := time.NewTimer(s.cfg.Refresh)
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-t.C:
		}
		t.Stop()
	}
}

// round takes a lease if there is none, and refreshes it if there is one. An error of the
// connection says nothing about the lease: it stays until the store says that it is gone.
func (s *Session) round(ctx context.Context) error {
	l, _ := s.Current()
	if l.Generation == 0 {
		return s.grant(ctx)
	}
	began := time.Now()
	err := s.refresh(ctx, l.ID)
	if errors.Is(err, ErrLeaseLost) {
		s.log.Info("lease lost", "lease", leaseName(l.ID), "generation", l.Generation)
		s.set(Lease{}, time.Time{}, err)
		return s.grant(ctx)
	}
	s.note(began, err)
	return err
}

// note records what the store said of the lease that there is.
func (s *Session) note(at time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteLocked(at, err)
}

func (s *Session) noteLocked(at time.Time, err error) {
	if err == nil {
		s.st.Refreshed, s.st.LastError = at, nil
	} else {
		s.st.LastError, s.st.LastErrorAt = err, time.Now()
	}
}

func (s *Session) grant(ctx context.Context) error {
	began := time.Now()
	var resp *clientv3.LeaseGrantResponse
	err := s.c.do(ctx, "take a lease", func(ctx context.Context) (err error) {
		resp, err = s.c.etcd.Grant(ctx, int64(max(time.Second, s.cfg.TTL)/time.Second))
		return err
	})
	if err != nil {
		s.set(Lease{}, began, err)
		return err
	}
	s.mu.Lock()
	generation := s.last + 1
	s.mu.Unlock()
	s.set(Lease{resp.ID, generation}, began, nil)
	s.log.Info("lease taken", "lease", leaseName(resp.ID), "generation", generation, "ttl", s.cfg.TTL)
	return nil
}

// refresh sends one keep-alive. The library's KeepAlive hides a lost connection, and its
// KeepAliveOnce spins while there is none.
func (s *Session) refresh(ctx context.Context, id clientv3.LeaseID) error {
	return s.c.do(ctx, "keep the lease alive", func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx) // ends the stream
		defer cancel()
		stream, err := pb.NewLeaseClient(s.c.etcd.ActiveConnection()).LeaseKeepAlive(clientv3.WithRequireLeader(ctx))
		if err != nil {
			return rpctypes.Error(err)
		}
		// A failed Send has its reason in Recv.
		_ = stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)})
		resp, err := stream.Recv()
		if err != nil {
			return rpctypes.Error(err)
		}
		if resp.TTL <= 0 {
			return ErrLeaseLost
		}
		return nil
	})
}

// end gives the lease up where that is wanted.
func (s *Session) end() {
	l, _ := s.Current()
	if !s.cfg.Revoke || l.Generation == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := s.c.do(ctx, "revoke the lease", func(ctx context.Context) error {
		_, err := s.c.etcd.Revoke(ctx, l.ID)
		return err
	})
	if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		s.log.Info("lease not revoked, it ends by itself", "lease", leaseName(l.ID), "error", err)
	}
	s.set(Lease{}, time.Time{}, ErrLeaseLost)
}

// leaseName is how etcd's tools print a lease.
func leaseName(id clientv3.LeaseID) string { return fmt.Sprintf("%016x", int64(id)) }
