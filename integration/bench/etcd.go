// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/weft-net/weft/kvstore"
)

// store is an etcd in a process of its own.
type store struct {
	storeReady
	*child
	dir     string
	clients []*kvstore.Client
}

// startStore starts a store and returns when it serves. stop ends it.
func startStore(ctx context.Context) (*store, error) {
	dir, err := os.MkdirTemp("", "weft-bench-")
	if err != nil {
		return nil, fmt.Errorf("start a store: %w", err)
	}
	s := &store{dir: dir}
	if s.child, err = startChild(ctx, &s.storeReady, "etcd", filepath.Join(dir, "etcd")); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// stop closes all clients, ends the process and removes its data.
func (s *store) stop() error {
	var errs []error
	for _, c := range s.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, s.child.stop(), os.RemoveAll(s.dir))...)
}

// ask sends a command and returns when it was done.
func (s *store) ask(command string) (time.Time, error) {
	var a storeAnswer
	err := s.child.ask(command, &a)
	return a.At, err
}

// client returns a client of the store, or of one of its gates.
func (s *store) client(url string) (*kvstore.Client, error) {
	cfg := kvstore.DefaultConfig()
	cfg.Endpoints = []string{url}
	c, err := kvstore.New(cfg, slog.New(slog.DiscardHandler))
	if err == nil {
		s.clients = append(s.clients, c)
	}
	return c, err
}
