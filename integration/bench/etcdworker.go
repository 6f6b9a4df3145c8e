// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/weft-net/weft/kvstore/embedded"
)

// storeReady is the first line of a store's process.
type storeReady struct {
	URL   string `json:"url"`   // of the store itself
	Ours  string `json:"ours"`  // through a gate, for what is measured
	Floor string `json:"floor"` // through another gate, for what it is compared with
}

// storeAnswer is the line after each command.
type storeAnswer struct {
	Error string    `json:"error,omitempty"`
	At    time.Time `json:"at"` // when it was done; of "first", when the first client had come through
}

// runStore is the process of a store: etcd and two gates to it. Commands are lines:
//
//	shut ours|floor    cut the clients of a gate and let nobody in
//	open ours|floor    let them in again
//	first ours|floor   when did the first one come in since
//	wipe               end etcd, remove its data, start it anew with the same settings
func runStore(ctx context.Context, dir string, in io.Reader, out io.Writer) (err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return err
	}
	s, err := embedded.Start(ctx, embedded.Config{Dir: dir, ClientURL: "http://" + addr, UnsafeNoFsync: true})
	if err != nil {
		return err
	}
	defer func() { s.Kill() }()
	gates := map[string]*gate{}
	for _, name := range []string{"ours", "floor"} {
		if gates[name], err = newGate(addr); err != nil {
			return err
		}
		defer gates[name].shut()
	}
	answers := json.NewEncoder(out)
	if err := answers.Encode(storeReady{"http://" + addr, "http://" + gates["ours"].addr, "http://" + gates["floor"].addr}); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var a storeAnswer
		var err error
		verb, name, _ := strings.Cut(lines.Text(), " ")
		g := gates[name]
		switch {
		case verb == "wipe":
			if err = s.Wipe(); err == nil {
				err = s.Restart(ctx)
			}
		case g == nil:
			err = fmt.Errorf("no gate %q", name)
		case verb == "shut":
			g.shut()
		case verb == "open":
			err = g.open()
		case verb == "first":
			a.At = g.first()
		default:
			err = errors.New("no such command")
		}
		if err != nil {
			a.Error = fmt.Sprintf("%s: %v", lines.Text(), err)
		}
		if a.At.IsZero() && verb != "first" {
			a.At = time.Now()
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
	return lines.Err()
}
