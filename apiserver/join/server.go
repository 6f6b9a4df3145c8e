// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/apiserver"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// Config is what a Server is told.
type Config struct {
	Settings Settings
	Listen   string // address:port, open while a token is; empty: nobody can join by this replica
	// Ban is told of the certificates that are refused from now on.
	Ban func(apiserver.Bans)
}

const (
	// fromStore is the source of rows.
	fromStore state.Source = "etcd"
	// lookAgain lies between two looks for the heartbeats of peers that are pending, and between two
	// tries to listen.
	lookAgain = 5 * time.Second
)

// Server is the part of an API server by which its cluster is joined: it listens while a token is
// open, watches over who has left, finds out when a pending peer has come, and has certificates
// renewed, ours by peers and theirs by us.
type Server struct {
	settings Settings
	listen   string
	ban      func(apiserver.Bans)
	client   *kvstore.Client
	log      *slog.Logger
	poll     time.Duration // between two looks for an approval
	look     time.Duration // between two looks for the heartbeats of pending peers
	door     *door

	tokens *state.Table[schema.TokenID, schema.Token]
	peers  *state.Table[string, schema.Peer]
}

// New returns a server. Without Listen the settings need not be complete.
func New(cfg Config, client *kvstore.Client, registry prometheus.Registerer, log *slog.Logger) (*Server, error) {
	if cfg.Listen != "" {
		if err := cfg.Settings.Validate(); err != nil {
			return nil, fmt.Errorf("join: listen: %w", err)
		}
		if _, _, err := net.SplitHostPort(cfg.Listen); err != nil {
			return nil, fmt.Errorf("join: listen: %q is not address:port, like :32380", cfg.Listen)
		}
	}
	s := &Server{
		settings: cfg.Settings, listen: cfg.Listen, ban: cfg.Ban, client: client, log: log, poll: time.Second, look: lookAgain,
		door:   newDoor(),
		tokens: state.NewTable[schema.TokenID]("tokens", state.Equal[schema.Token]),
		peers:  state.NewTable[string]("peers", schema.Peer.Equal),
	}
	if err := registry.Register(collector{s}); err != nil {
		return nil, fmt.Errorf("join: metrics: %w", err)
	}
	return s, nil
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	watch := kvstore.WatchConfig{Source: fromStore}
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{
		kvstore.NewWatch(s.client, schema.Tokens(), s.tokens, watch, s.log).Run,
		kvstore.NewWatch(s.client, schema.Peers(), s.peers, watch, s.log).Run,
		s.watchBans, s.watchTokens, s.watchPending, s.watchCertificates,
	} {
		g.Go(func() error { return run(ctx) })
	}
	return g.Wait()
}

// watchBans tells whom to refuse. A row that goes away lifts no ban: a store that lost its rows has
// let nobody in.
func (s *Server) watchBans(ctx context.Context) error {
	cursor := s.peers.Cursor()
	defer cursor.Close()
	bans := map[string]schema.Peer{}
	return state.Derive(ctx, nil, "", func() error {
		for _, c := range cursor.Next(0) {
			if !c.Deleted {
				bans[c.Row.Key] = c.Row.Value
			}
		}
		if s.ban != nil {
			s.ban(bansOf(bans))
		}
		return nil
	}, cursor)
}

// bansOf are the users and certificates that peers may not use any more.
func bansOf(peers map[string]schema.Peer) apiserver.Bans {
	b := apiserver.Bans{Users: map[string]bool{}, Serials: map[string]bool{}}
	for name, p := range peers {
		if p.State == schema.PeerLeft {
			b.Users[kvstore.UserRemoteCluster(name)] = true
		}
		for _, i := range p.Issued {
			if i.Revoked {
				b.Serials[i.Serial] = true
			}
		}
	}
	return b
}

// watchTokens has the door open as long as a token can be used.
func (s *Server) watchTokens(ctx context.Context) error {
	if s.listen == "" {
		return nil
	}
	tokens, peers := s.tokens.Cursor(), s.peers.Cursor()
	defer tokens.Close()
	defer peers.Close()
	var talks errgroup.Group
	defer func() { _ = talks.Wait() }() // they end with ctx

	// change waits until a token or a peer is another than before, or until a time.
	change := func(until time.Time) {
		wait, cancel := ctx, context.CancelFunc(func() {})
		if !until.IsZero() {
			wait, cancel = context.WithDeadline(ctx, until)
		}
		defer cancel()
		_ = state.WaitAny(wait, tokens, peers)
		tokens.Next(0)
		peers.Next(0)
	}
	for {
		until := s.openUntil(time.Now())
		if until.IsZero() {
			if change(until); ctx.Err() != nil {
				return nil
			}
			continue
		}
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", s.listen)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			s.log.Warn("nobody can join", "error", fmt.Errorf("join: listen: %w", err))
			change(time.Now().Add(lookAgain))
			continue
		}
		s.log.Info("open for joining", "address", l.Addr().String(), "until", until)
		var door errgroup.Group
		door.Go(func() error { return s.accept(ctx, l, &talks) })
		for !until.IsZero() && ctx.Err() == nil {
			change(until)
			until = s.openUntil(time.Now())
		}
		_ = l.Close()
		_ = door.Wait()
		s.log.Info("closed for joining", "address", l.Addr().String())
		if ctx.Err() != nil {
			return nil
		}
	}
}

// openUntil is when the last token ends that can be used: one that is not used, or whose joiner may
// not have got all that it needs. Zero: there is none.
func (s *Server) openUntil(now time.Time) (until time.Time) {
	for row := range s.tokens.All() {
		t := row.Value
		if t.UsedBy != "" {
			// A peer that is not seen yet is one that was admitted a moment ago.
			if p, ok := s.peers.Get(t.Joiner); ok && (p.Value.State == schema.PeerJoined || p.Value.State == schema.PeerLeft) {
				continue
			}
		}
		if t.Expires.After(now) && t.Expires.After(until) {
			until = t.Expires
		}
	}
	return until
}

// accept takes joiners from a listener until it is closed.
func (s *Server) accept(ctx context.Context, l net.Listener, talks *errgroup.Group) error {
	for {
		raw, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil { // too many files, for instance
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		from, _ := netip.ParseAddrPort(raw.RemoteAddr().String())
		v := s.door.enter(from.Addr(), func() { _ = raw.Close() })
		if v == nil {
			_ = raw.Close()
			continue
		}
		talks.Go(func() error {
			defer v.leave()
			s.admit(ctx, tls.Server(raw, s.tlsConfig()), v)
			return nil
		})
	}
}

// tlsConfig shows the API server's certificate with its root. There are no session tickets: each
// joiner sees the certificate.
func (s *Server) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{proofContext}, SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			pair, _, err := s.settings.shown()
			return &pair, err
		},
	}
}

// watchPending looks for the heartbeats of peers that are pending and have a client file here.
func (s *Server) watchPending(ctx context.Context) error {
	tick := time.NewTicker(s.look)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for row := range s.peers.All() {
			f := files{s.settings.MeshDir, row.Key}
			if row.Value.State != schema.PeerPending || s.settings.MeshDir == "" {
				continue
			}
			if there, err := f.exists(); err != nil || !there {
				continue
			}
			if err := heartbeat(ctx, f); err != nil {
				s.log.Debug("peer is pending", "cluster", row.Key, "reason", err)
				continue
			}
			news, err := saw(ctx, s.client, row.Key)
			if err != nil {
				s.log.Warn("peer is there, but not noted", "cluster", row.Key, "error", err)
			} else if news {
				s.log.Info("cluster joined", "cluster", row.Key)
			}
		}
	}
}
