// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// herd is so many clients that list so many keys, all at once.
type herd struct{ clients, keys int }

// herdRotations is how often each server is restarted: a herd is no thing of a moment.
const herdRotations = 3

// measureHerd is the row herd.
func measureHerd(ctx context.Context, cfg Config) ([]Line, error) {
	return runHerds(ctx, cfg, []herd{{cfg.Clients, 10_000}, {max(1, cfg.Clients/10), 100_000}})
}

// runHerds measures herds, the one with the fewest keys first.
func runHerds(ctx context.Context, cfg Config, herds []herd) (_ []Line, err error) {
	s, err := newServed(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	kinds := []string{kindEtcd, kindWeft}
	// The API server has its address before its first clients come. Then it is away, as it is whenever
	// the etcd is measured: it would list too.
	if err := s.serve(ctx, kindWeft); err != nil {
		return nil, err
	}
	s.kill(kindWeft)
	prefix, have := watchPrefix(kindWeft), 0
	for _, kind := range kinds {
		if err := s.attend(ctx, kind, prefix); err != nil {
			return nil, err
		}
	}
	var lines []Line
	for _, h := range herds {
		if err := s.fill(ctx, prefix, have, h.keys); err != nil {
			return nil, err
		}
		have = h.keys
		seconds, bytes := map[string][]float64{}, map[string][]float64{}
		for range herdRotations {
			for _, kind := range kinds {
				took, peak, err := s.stampede(ctx, kind, h.clients)
				if err != nil {
					return nil, fmt.Errorf("%d clients list %d keys of %s: %w", h.clients, h.keys, kind, err)
				}
				seconds[kind], bytes[kind] = append(seconds[kind], took.Seconds()), append(bytes[kind], float64(peak))
				if cfg.Progress != nil {
					fmt.Fprintf(cfg.Progress, "herd: %d clients have %d keys of %s in %v, %d MB\n", h.clients, h.keys, kind, took, peak>>20)
				}
			}
		}
		what := fmt.Sprintf("%d clients list %d keys after a restart: ", h.clients, h.keys)
		lines = append(lines, pairedLine("herd", what+"time to the last, etcd / weft", 0, seconds[kindWeft], seconds[kindEtcd]),
			amountLine("herd", what+"peak memory", "MB", 1<<20, bytes[kindWeft], bytes[kindEtcd]))
	}
	return lines, nil
}

// stampede kills a server, starts it while clients wait for it, and returns how long it took from its
// start until the last of them had listed, and what the server had in memory at the most.
func (s *served) stampede(ctx context.Context, kind string, clients int) (took time.Duration, peak int64, err error) {
	if s.servers[kind] != nil {
		s.kill(kind)
	}
	line := fmt.Sprint("list ", clients)
	began := time.Now()
	if err := s.clients[kind].tell(line); err != nil {
		return 0, 0, err
	}
	if err := s.serve(ctx, kind); err != nil {
		return 0, 0, err
	}
	var a watchAnswer
	if err := s.clients[kind].answer(line, &a); err != nil {
		return 0, 0, err
	}
	if peak, err = s.servers[kind].memory(); err != nil {
		return 0, 0, err
	}
	if kind == kindWeft {
		s.kill(kind)
	}
	return a.At.Sub(began), peak, nil
}

// amountLine compares amounts of which less is better, and names both: etcd's over ours.
func amountLine(row, what, unit string, in float64, ours, etcd []float64) Line {
	l := pairedLine(row, what, 0, ours, etcd)
	of, _ := median(ours)
	to, _ := median(etcd)
	l.What += fmt.Sprintf(", etcd %.1f %s / weft %.1f %s", to/in, unit, of/in, unit)
	l.P50, l.OfNS, l.ToNS = 0, 0, 0 // they are not times
	return l
}

// measureResume is the row resume.
func measureResume(ctx context.Context, cfg Config) (_ []Line, err error) {
	s, err := newServed(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.serve(ctx, kindWeft); err != nil {
		return nil, err
	}
	kinds := []string{kindEtcd, kindWeft}
	seconds, bytes := map[string][]float64{}, map[string][]float64{}
	var sent, due int64 // events, of the API server
	for _, kind := range kinds {
		if err := s.open(ctx, kind, cfg.Clients); err != nil {
			return nil, err
		}
	}
	for range herdRotations {
		for _, kind := range kinds {
			r, err := s.comeBack(ctx, kind, cfg.Clients)
			if err != nil {
				return nil, fmt.Errorf("%d clients come back to %s: %w", cfg.Clients, kind, err)
			}
			seconds[kind], bytes[kind] = append(seconds[kind], r.took.Seconds()), append(bytes[kind], float64(r.bytes)/float64(cfg.Clients))
			if kind == kindWeft {
				sent, due = sent+r.sent, due+r.due
			}
			if cfg.Progress != nil {
				fmt.Fprintf(cfg.Progress, "resume: %d clients of %s are back in %v, %d bytes, %d events too many\n",
					cfg.Clients, kind, r.took, r.bytes, r.sent-r.due)
			}
		}
	}
	exact := Line{
		Row: "resume", What: fmt.Sprintf("events that %d clients lacked / events that they were sent, %d too many", cfg.Clients, sent-due),
		Goal: 1, Ratio: float64(due) / float64(max(1, sent)), Valid: true,
	}
	exact.Met = sent == due
	return []Line{
		exact,
		amountLine("resume", "bytes to a client that comes back, with those of TLS", "kB", 1000, bytes[kindWeft], bytes[kindEtcd]),
		pairedLine("resume", fmt.Sprintf("time from the start until the last of %d is back: etcd / weft", cfg.Clients), 0, seconds[kindWeft], seconds[kindEtcd]),
	}, nil
}

// comeback is what a restart has cost clients that knew all.
type comeback struct {
	took      time.Duration // from the start of the server until each watch stood
	bytes     int64         // until then, to all
	sent, due int64         // events: what came, and what happened meanwhile
}

// comeBack kills a server, starts it, and waits until its clients are back. Two events behind that show
// what else they are sent: what came after the first and is not due is counted with the second.
func (s *served) comeBack(ctx context.Context, kind string, clients int) (r comeback, err error) {
	if _, err := s.slot(ctx, kind, clients, 5, 50); err != nil {
		return r, err // each knows all
	}
	// Watches stood when they were opened; those that come are new.
	if err := s.clients[kind].ask("reopened 0", &watchAnswer{}); err != nil {
		return r, err
	}
	s.kill(kind)
	began := time.Now()
	if err := s.serve(ctx, kind); err != nil {
		return r, err
	}
	var a watchAnswer
	if err := s.clients[kind].ask(fmt.Sprint("reopened ", clients), &a); err != nil {
		return r, err
	}
	r.took, r.bytes, r.sent = time.Since(began), a.Bytes, a.Events
	for range 2 {
		line := fmt.Sprint("expect ", clients)
		if err := s.clients[kind].tell(line); err != nil {
			return r, err
		}
		if err := s.write(ctx, kind, 1, 50); err != nil {
			return r, err
		}
		if err := s.clients[kind].answer(line, &a); err != nil {
			return r, err
		}
		r.sent, r.due = r.sent+a.Events, r.due+int64(clients)
	}
	return r, nil
}
