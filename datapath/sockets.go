// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/weft-net/weft/bpf"
)

// sockets are the programs at the sockets of a cgroup. Services work without them, by the packet: that
// they cannot be had or attached is no end of a run, but a line of the status.
type sockets struct {
	cfg     Config
	pins    pins
	log     *slog.Logger
	objects *bpf.Sockets // nil: not wanted, or refused
	refused error        // why they could not be loaded

	mu  sync.Mutex
	err error // of the last time that ensure looked
}

// ensure attaches what is wanted and detaches what is not. Links are pinned: they outlive the process.
func (s *sockets) ensure() error {
	err := s.refused
	if s.objects == nil {
		// An earlier run's programs would go on with services that nobody writes any more.
		err = errors.Join(err, s.detach())
	} else if err = s.attach(); err != nil {
		// All or none: who is given a backend must be told the service's name, and what an earlier run
		// attached elsewhere may have maps that nobody writes.
		err = errors.Join(err, unpinLinks(s.pins.sockets()))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	return err
}

// Run looks now and then until ctx ends: a cgroup may be removed and made again.
func (s *sockets) Run(ctx context.Context) error {
	if s.cfg.SocketLB == SocketLBOff && s.last() == nil {
		return nil
	}
	refresh := time.NewTicker(s.cfg.RefreshInterval)
	defer refresh.Stop()
	failing := s.last() != nil
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-refresh.C:
		}
		if err := s.ensure(); (err != nil) != failing {
			failing = !failing
			if failing {
				s.log.Warn("programs at sockets are not as they should be", "error", err)
			} else {
				s.log.Info("programs at sockets are as they should be")
			}
		}
	}
}

func (s *sockets) last() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close lets go of the programs; what is attached stays.
func (s *sockets) Close() {
	if s != nil && s.objects != nil {
		s.objects.Close()
	}
}

// counts are the sums over all processors, since the maps were made.
func (s *sockets) counts() (sum bpf.SocketCount, err error) {
	var each []bpf.SocketCount
	if err := s.objects.SocketCounts.Lookup(uint32(0), &each); err != nil {
		return sum, bpf.WriteError("socket_counts", s.objects.SocketCounts, err)
	}
	for _, c := range each {
		sum.Translated += c.Translated
		sum.Refused += c.Refused
	}
	return sum, nil
}

// collect gives Prometheus what there is to count, by the functions of a collector.
func (s *sockets) collect(gauge, counter func(name, help string, value float64, labels ...string)) {
	if s.cfg.SocketLB == SocketLBOff {
		return
	}
	attached := 1.0
	if s.last() != nil {
		attached = 0
	}
	gauge("sockets_attached", "1 while the programs at sockets are attached, 0 while they cannot be.", attached)
	if s.objects == nil {
		return
	}
	if n, err := s.counts(); err == nil {
		const help = "Sockets that asked for a service, by what they were given: a backend, or an error."
		counter("socket_backends_total", help, float64(n.Translated), "result", "given")
		counter("socket_backends_total", help, float64(n.Refused), "result", "refused")
	}
}

// line is the status.
func (s *sockets) line() Line {
	l := Line{Name: "sockets", Text: "services are translated for each packet"}
	err := s.last()
	switch {
	case err != nil:
		l.State, l.Reason = Warn, err.Error()
		l.Do = "repair what the reason names, or set socket-lb to off; services work meanwhile"
	case s.objects == nil:
		l.State = Off
	default:
		whose := "the node"
		if s.cfg.SocketLB == SocketLBAll {
			whose = "the node and its endpoints"
		}
		l.Text = fmt.Sprintf("those of %s in %s are given backends", whose, s.cfg.SocketCgroup)
		if n, err := s.counts(); err == nil {
			l.Text += fmt.Sprintf(": %d were, %d found none", n.Translated, n.Refused)
		}
	}
	return l
}
