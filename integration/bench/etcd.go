// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/weft-net/weft/kvstore"
)

// store is an etcd in a process of its own, so that its processor time is not taken for ours.
type store struct {
	storeReady
	dir     string
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers *json.Decoder
	stderr  strings.Builder
	clients []*kvstore.Client
}

// startStore starts a store and returns when it serves. stop ends it.
func startStore(ctx context.Context) (_ *store, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("start a store: %w", err)
		}
	}()
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "weft-bench-")
	if err != nil {
		return nil, err
	}
	s := &store{dir: dir, cmd: exec.CommandContext(ctx, exe, workerArg, "etcd", filepath.Join(dir, "etcd"))}
	s.cmd.Stderr = &s.stderr
	if s.stdin, err = s.cmd.StdinPipe(); err == nil {
		var out io.ReadCloser
		if out, err = s.cmd.StdoutPipe(); err == nil {
			s.answers = json.NewDecoder(out)
			err = s.cmd.Start()
		}
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := s.answers.Decode(&s.storeReady); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// stop closes all clients, ends the process and removes its data.
func (s *store) stop() error {
	var errs []error
	for _, c := range s.clients {
		errs = append(errs, c.Close())
	}
	s.stdin.Close()
	timer := time.AfterFunc(10*time.Second, func() { s.cmd.Process.Kill() })
	defer timer.Stop()
	if err := s.cmd.Wait(); err != nil {
		errs = append(errs, fmt.Errorf("store: %w: %s", err, strings.TrimSpace(s.stderr.String())))
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// ask sends a command and returns when it was done.
func (s *store) ask(command string) (time.Time, error) {
	if _, err := fmt.Fprintln(s.stdin, command); err != nil {
		return time.Time{}, fmt.Errorf("store: %s: %w", command, err)
	}
	var a storeAnswer
	if err := s.answers.Decode(&a); err != nil {
		return time.Time{}, fmt.Errorf("store: %s: %w", command, err)
	}
	if a.Error != "" {
		return time.Time{}, fmt.Errorf("store: %s", a.Error)
	}
	return a.At, nil
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
