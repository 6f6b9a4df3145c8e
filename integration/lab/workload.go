// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// Ports of the workload.
const (
	portEcho = 7  // TCP and UDP: sends back what it gets
	portWho  = 13 // TCP and UDP: says who it is in one line
	portHTTP = 80 // GET /: who, where and to whom, as JSON
)

// who is what a workload says of itself.
type who struct {
	Name    string `json:"name"`
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	You     string `json:"you,omitempty"` // the client's address as the workload sees it
}

// idle ends a connection of the workload on which nothing happens.
const idle = 10 * time.Minute

// serve runs a workload until ctx ends: it listens on every address of its namespace, and calls
// ready once all ports are open.
func (w who) serve(ctx context.Context, ready func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var closers []io.Closer
	defer func() {
		for _, c := range closers {
			c.Close()
		}
	}()
	g, ctx := errgroup.WithContext(ctx)
	listen := net.ListenConfig{}
	// MPTCP sockets would behave differently from what most programs use.
	listen.SetMultipathTCP(false)
	for port, handle := range map[int]func(context.Context, net.Conn){portEcho: echo, portWho: w.answer} {
		ln, err := listen.Listen(ctx, "tcp", ":"+strconv.Itoa(port))
		if err != nil {
			return err
		}
		closers = append(closers, ln)
		g.Go(func() error { return accept(ctx, ln, handle) })
		pc, err := listen.ListenPacket(ctx, "udp", ":"+strconv.Itoa(port))
		if err != nil {
			return err
		}
		closers = append(closers, pc)
		g.Go(func() error { return w.datagrams(pc, port == portEcho) })
	}
	ln, err := listen.Listen(ctx, "tcp", ":"+strconv.Itoa(portHTTP))
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: w, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: idle}
	closers = append(closers, srv)
	g.Go(func() error { return srv.Serve(ln) })
	g.Go(ready)
	g.Go(func() error {
		<-ctx.Done()
		for _, c := range closers {
			c.Close()
		}
		return nil
	})
	err = g.Wait()
	if context.Cause(ctx) != nil && (errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed)) {
		return nil
	}
	return err
}

func accept(ctx context.Context, ln net.Listener, handle func(context.Context, net.Conn)) error {
	g, ctx := errgroup.WithContext(ctx)
	for {
		c, err := ln.Accept()
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		g.Go(func() error {
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			handle(ctx, c)
			return nil
		})
	}
}

func echo(_ context.Context, c net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		if err := c.SetDeadline(time.Now().Add(idle)); err != nil {
			return
		}
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (w who) answer(_ context.Context, c net.Conn) {
	if c.SetDeadline(time.Now().Add(10*time.Second)) == nil {
		fmt.Fprintf(c, "%s %s %s %s\n", w.Name, w.Cluster, w.Node, c.RemoteAddr())
	}
}

func (w who) datagrams(pc net.PacketConn, echo bool) error {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := pc.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		answer := buf[:n]
		if !echo {
			answer = fmt.Appendf(nil, "%s %s %s %s\n", w.Name, w.Cluster, w.Node, from)
		}
		// A client that is gone by now is no business of the workload.
		pc.WriteTo(answer, from) //nolint:errcheck
	}
}

func (w who) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.You = r.RemoteAddr
	rw.Header().Set("Content-Type", "application/json")
	json.NewEncoder(rw).Encode(w) //nolint:errcheck // the client went away
}
