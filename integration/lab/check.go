// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/weft-net/weft/internal/netns"
)

// Sizes of the messages that Check sends, bytes: one that every path carries in one packet, one
// that TCP cuts into segments, one that IP cuts into fragments.
const (
	smallMessage = 1
	tcpMessage   = 64 << 10
	fragmented   = 60_000
)

// probe is one way through the network: who calls whom, and what the path is called.
type probe struct {
	name    string
	from    string // namespace
	to      netip.Addr
	service bool // a virtual address answers no ping
}

// Result is what Check saw on one way.
type Result struct {
	Name     string     `json:"name"`
	To       netip.Addr `json:"to"`
	Protocol string     `json:"protocol"`
	Bytes    int        `json:"bytes"`
	Error    string     `json:"error,omitempty"`
}

// Check sends TCP, UDP and ICMP, small and large, over every kind of way that a mesh has: within a
// node, between nodes, between clusters; from endpoints, from nodes, to both, and through services.
func (l *Lab) Check(ctx context.Context) ([]Result, error) {
	stop, err := l.serveOnNodes(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	var results []Result
	for _, p := range l.probes() {
		for _, t := range []struct {
			protocol string
			bytes    int
			do       func(context.Context, netip.Addr, int) error
		}{
			{"tcp", smallMessage, echoTCP}, {"tcp", tcpMessage, echoTCP},
			{"udp", smallMessage, echoUDP}, {"udp", fragmented, echoUDP},
			{"icmp", smallMessage, echoICMP}, {"icmp", fragmented, echoICMP},
		} {
			if p.service && t.protocol == "icmp" {
				continue
			}
			r := Result{Name: p.name, To: p.to, Protocol: t.protocol, Bytes: t.bytes}
			if err := inside(p.from, func() error { return attempts(ctx, p.to, t.bytes, t.do) }); err != nil {
				r.Error = err.Error()
			}
			results = append(results, r)
		}
	}
	return results, nil
}

// attempts gives a lossy protocol three tries: the first fragments of a new pair of hosts may be
// lost while neighbours are being resolved, as on any network.
func attempts(ctx context.Context, to netip.Addr, size int, do func(context.Context, netip.Addr, int) error) error {
	var err error
	for range 3 {
		if err = do(ctx, to, size); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// probes lists the ways, from the first node of the first cluster.
func (l *Lab) probes() []probe {
	own, ns := &l.Clusters[0], &l.Clusters[0].Nodes[0]
	client, node := ns.Pods[0].Workload.Netns, ns.Agent.Netns
	var ps []probe
	add := func(name, from string, service bool, to ...netip.Addr) {
		for _, addr := range to {
			ps = append(ps, probe{name, from, addr, service})
		}
	}
	pods := func(n *Node) []netip.Addr { return n.Pods[len(n.Pods)-1].Addresses }
	add("endpoint to endpoint, same node", client, false, pods(ns)...)
	add("endpoint to own node", client, false, ns.Addresses...)
	add("node to own endpoint", node, false, pods(ns)...)
	add("endpoint to service", client, true, own.Service.Addresses...)
	add("endpoint to itself by its own service", client, true, own.Self.Addresses...)
	if len(own.Nodes) > 1 {
		other := &own.Nodes[1]
		add("endpoint to endpoint, other node", client, false, pods(other)...)
		add("endpoint to other node", client, false, other.Addresses...)
		add("node to endpoint of other node", node, false, pods(other)...)
	}
	if len(l.Clusters) > 1 {
		far := &l.Clusters[1].Nodes[0]
		add("endpoint to endpoint, other cluster", client, false, pods(far)...)
		add("endpoint to node of other cluster", client, false, far.Addresses...)
		add("node to endpoint of other cluster", node, false, pods(far)...)
	}
	return ps
}

// serveOnNodes runs the workload's servers on the nodes, so that there is somebody to call.
func (l *Lab) serveOnNodes(ctx context.Context) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var waits []chan error
	stop = func() {
		cancel()
		for _, w := range waits {
			<-w
		}
	}
	for i := range l.Clusters {
		for k := range l.Clusters[i].Nodes {
			n := &l.Clusters[i].Nodes[k]
			done, ready := make(chan error, 1), make(chan struct{})
			go func() {
				done <- inside(n.Agent.Netns, func() error {
					w := who{Name: n.Name, Cluster: n.Cluster, Node: n.Name}
					return w.serve(ctx, func() error { close(ready); return nil })
				})
			}()
			waits = append(waits, done)
			select {
			case <-ready:
			case err := <-done:
				done <- err
				stop()
				return nil, fmt.Errorf("serve on node %s: %w", n.Name, err)
			}
		}
	}
	return stop, nil
}

// inside runs f in a namespace; what f opens belongs there.
func inside(name string, f func() error) error {
	ns, err := netns.Open(name)
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(f)
}

// patience bounds one exchange of Check.
const patience = 5 * time.Second

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

func dialEcho(ctx context.Context, network string, to netip.Addr) (net.Conn, error) {
	d := net.Dialer{Timeout: patience}
	d.SetMultipathTCP(false)
	c, err := d.DialContext(ctx, network, net.JoinHostPort(to.String(), strconv.Itoa(portEcho)))
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func echoTCP(ctx context.Context, to netip.Addr, size int) error {
	c, err := dialEcho(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	want, got := pattern(size), make([]byte, size)
	sent := make(chan error, 1)
	go func() { _, err := c.Write(want); sent <- err }()
	_, err = io.ReadFull(c, got)
	if err != nil {
		c.Close() // ends a write that waits
	}
	if err = errors.Join(err, <-sent); err != nil {
		return err
	}
	return same(got, want)
}

func echoUDP(ctx context.Context, to netip.Addr, size int) error {
	c, err := dialEcho(ctx, "udp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	want, got := pattern(size), make([]byte, 64<<10)
	if err := c.SetDeadline(time.Now().Add(patience / 3)); err != nil {
		return err
	}
	if _, err := c.Write(want); err != nil {
		return err
	}
	n, err := c.Read(got)
	if err != nil {
		return err
	}
	return same(got[:n], want)
}

func same(got, want []byte) error {
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%d bytes came back, not the %d that were sent", len(got), len(want))
	}
	return nil
}

// printResults prints a line for each way, and fails if one does not work.
func printResults(w io.Writer, format string, results []Result) error {
	failed := 0
	for _, r := range results {
		if r.Error != "" {
			failed++
		}
	}
	if format == "json" {
		if err := json.NewEncoder(w).Encode(results); err != nil {
			return err
		}
	} else {
		for _, r := range results {
			mark, more := "✓", ""
			if r.Error != "" {
				mark, more = "✗", "  "+r.Error
			}
			fmt.Fprintf(w, "%s %-40s %-18s %-4s %6d bytes%s\n", mark, r.Name, r.To, r.Protocol, r.Bytes, more)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d ways do not work", failed, len(results))
	}
	return nil
}
