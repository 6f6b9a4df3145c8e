// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Load describes what a client does to one address.
type Load struct {
	Target   string        // host:port of a "who" or an echo server
	Rate     int           // new connections a second
	Sessions int           // connections that stay open and send one message a second
	Duration time.Duration // 0: until it is stopped
	Timeout  time.Duration // of one connect and answer
	Local    string        // source address; empty: the kernel's choice
}

// Connect is one line of the log of a client: one connection, or one message of a session.
type Connect struct {
	At      time.Time     `json:"at"`
	Took    time.Duration `json:"took"` // nanoseconds
	Kind    string        `json:"kind"` // connect or session
	Session int           `json:"session,omitempty"`
	Name    string        `json:"name,omitempty"` // who answered
	Cluster string        `json:"cluster,omitempty"`
	Error   string        `json:"error,omitempty"`
}

// Summary is what a client saw in all.
type Summary struct {
	Connects int            `json:"connects"`
	Messages int            `json:"messages"` // of sessions
	Failed   int            `json:"failed"`
	Resets   int            `json:"resets"` // sessions that ended before their time
	By       map[string]int `json:"by"`     // answers by "cluster/name"
	// FirstError is why the first connect that failed did.
	FirstError string        `json:"firstError,omitempty"`
	P50        time.Duration `json:"p50"`
	P99        time.Duration `json:"p99"`
}

// Run puts the load on the target until ctx ends or the duration is over, and writes a line of
// JSON for each connect to log. A connect that fails is a line, not an error.
func (l Load) Run(ctx context.Context, log io.Writer) (Summary, error) {
	if l.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.Duration)
		defer cancel()
	}
	rec := &recorder{enc: json.NewEncoder(log), sum: Summary{By: map[string]int{}}}
	var g errgroup.Group
	if l.Rate > 0 {
		g.Go(func() error { return l.connects(ctx, rec) })
	}
	for i := 1; i <= l.Sessions; i++ {
		g.Go(func() error { l.session(ctx, i, rec); return nil })
	}
	err := g.Wait()
	return rec.summary(), errors.Join(err, rec.err)
}

// connects opens connections at the rate, each as late as the ones before made it: a slow answer
// holds up no other.
func (l Load) connects(ctx context.Context, rec *recorder) error {
	var g errgroup.Group
	g.SetLimit(1024)
	tick := time.NewTicker(time.Second / time.Duration(l.Rate))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-tick.C:
			g.Go(func() error { rec.add(l.once()); return nil })
		}
	}
}

func (l Load) dial() (net.Conn, error) {
	d := net.Dialer{Timeout: l.Timeout}
	d.SetMultipathTCP(false)
	if l.Local != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(l.Local)}
	}
	return d.Dial("tcp", l.Target)
}

// once asks who answers.
func (l Load) once() Connect {
	c := Connect{At: time.Now(), Kind: "connect"}
	err := func() error {
		conn, err := l.dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(c.At.Add(l.Timeout)); err != nil {
			return err
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil {
			return err
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			return fmt.Errorf("answer %q: not understood", line)
		}
		c.Name, c.Cluster = f[0], f[1]
		return nil
	}()
	c.Took = time.Since(c.At)
	if err != nil {
		c.Error = err.Error()
	}
	return c
}

// session holds one connection to an echo server and asks it once a second for its message back.
func (l Load) session(ctx context.Context, number int, rec *recorder) {
	conn, err := l.dial()
	if err != nil {
		rec.add(Connect{At: time.Now(), Kind: "session", Session: number, Error: err.Error()})
		return
	}
	defer conn.Close()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	buf := make([]byte, 64)
	for i := 0; ; i++ {
		c := Connect{At: time.Now(), Kind: "session", Session: number}
		msg := fmt.Sprintf("%d %d\n", number, i)
		err := conn.SetDeadline(c.At.Add(l.Timeout))
		if err == nil {
			_, err = io.WriteString(conn, msg)
		}
		if err == nil {
			_, err = io.ReadFull(conn, buf[:len(msg)])
		}
		c.Took = time.Since(c.At)
		if err != nil {
			c.Error = err.Error()
			rec.add(c)
			return
		}
		rec.add(c)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// recorder writes the log and counts.
type recorder struct {
	mu   sync.Mutex
	enc  *json.Encoder
	err  error
	sum  Summary
	took []time.Duration
}

func (r *recorder) add(c Connect) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.enc.Encode(c); err != nil && r.err == nil {
		r.err = fmt.Errorf("log of connects: %w", err)
	}
	switch {
	case c.Kind == "session" && c.Error != "":
		r.sum.Resets++
	case c.Kind == "session":
		r.sum.Messages++
	case c.Error != "":
		r.sum.Connects++
		r.sum.Failed++
		if r.sum.FirstError == "" {
			r.sum.FirstError = c.Error
		}
	default:
		r.sum.Connects++
		r.sum.By[c.Cluster+"/"+c.Name]++
		r.took = append(r.took, c.Took)
	}
}

func (r *recorder) summary() Summary {
	r.mu.Lock()
	defer r.mu.Unlock()
	sort.Slice(r.took, func(i, j int) bool { return r.took[i] < r.took[j] })
	if n := len(r.took); n > 0 {
		r.sum.P50, r.sum.P99 = r.took[n/2], r.took[n*99/100]
	}
	return r.sum
}
