// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/netns"
)

// A wire is one end of a link that can be cut.
type wire struct{ netns, dev string }

// wires finds what a name of `weft lab cut` stands for:
//
//	control/<cluster>  the cluster's link to the other clusters' API servers and stores
//	data/<cluster>     the cluster's link for packets of pods and nodes
//	node/<node>        the node's link for packets
//	store/<node>       the node's link to all stores
//	etcd/<cluster>     the link of the cluster's own store
func (l *Lab) wires(name string) (wire, error) {
	kind, what, ok := strings.Cut(name, "/")
	if !ok {
		return wire{}, fmt.Errorf("link %q: want control/CLUSTER, data/CLUSTER, etcd/CLUSTER, node/NODE or store/NODE", name)
	}
	switch kind {
	case "control", "data", "etcd":
		c, err := l.cluster(what)
		if err != nil {
			return wire{}, err
		}
		switch kind {
		case "control":
			return wire{l.WAN, controlLink(*c)}, nil
		case "data":
			return wire{l.WAN, dataLink(*c)}, nil
		}
		return wire{c.Switch, "etcd"}, nil
	case "node", "store":
		c, n, err := l.node(what)
		if err != nil {
			return wire{}, err
		}
		port := map[string]string{"node": "n", "store": "c"}[kind] + n.Name[strings.LastIndexByte(n.Name, '-')+1:]
		return wire{c.Switch, port}, nil
	}
	return wire{}, fmt.Errorf("link %q: want control/CLUSTER, data/CLUSTER, etcd/CLUSTER, node/NODE or store/NODE", name)
}

// Cut takes a link down. The devices of nodes keep their carrier where the cut is behind a bridge,
// as with a broken wire somewhere on the way.
func (l *Lab) Cut(name string) error { return l.setLink(name, false) }

// Heal brings a link back.
func (l *Lab) Heal(name string) error { return l.setLink(name, true) }

func (l *Lab) setLink(name string, up bool) error {
	w, err := l.wires(name)
	if err != nil {
		return err
	}
	ns, err := netns.Open(w.netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	if !up {
		return ns.SetDown(w.dev)
	}
	if err := ns.SetUp(w.dev); err != nil {
		return err
	}
	if w.netns != l.WAN {
		return nil
	}
	// The kernel forgets routes through a device that goes down, and IPv6 addresses with them.
	for _, c := range l.Clusters {
		if w.dev == dataLink(c) || w.dev == controlLink(c) {
			return l.restoreRouter(ns, c, w.dev)
		}
	}
	return nil
}

// Kill ends one process of the lab with SIGKILL, or another signal:
//
//	etcd/<cluster>, operator/<cluster>, apiserver/<cluster>, agent/<node>, pod/<pod>
//
// etcd/<cluster>/2 is the second member of a store that has several, and so with API servers.
//
// A pod's endpoint is taken out as well, as a container runtime does when a container dies, unless
// the signal is not one that ends it. A stopped process (SIGSTOP) goes on with SIGCONT. One that a signal
// should have ended and did not is an error.
func Kill(ctx context.Context, dir, name string, sig syscall.Signal) error {
	return update(ctx, dir, func(l *Lab) error { return l.kill(ctx, name, sig) })
}

func (l *Lab) kill(ctx context.Context, name string, sig syscall.Signal) error {
	p, n, pod, err := l.process(name)
	if err != nil {
		return err
	}
	if !p.alive() {
		return fmt.Errorf("%s does not run", name)
	}
	switch sig {
	case syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGCONT, syscall.SIGHUP,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCHLD, syscall.SIGURG, syscall.SIGWINCH:
		return p.signal(sig)
	}
	// Others end most programs, but none that is stopped, and not each that is not.
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not within %v", startTimeout))
	defer cancel()
	if err := p.end(ctx, sig); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if pod != nil {
		return l.deleteEndpoint(ctx, n, pod)
	}
	return nil
}

// Start brings back what was killed and waits until it serves.
func Start(ctx context.Context, dir, name string) error {
	return update(ctx, dir, func(l *Lab) error { return l.startAgain(ctx, name) })
}

func (l *Lab) startAgain(ctx context.Context, name string) error {
	p, n, pod, err := l.process(name)
	if err != nil {
		return err
	}
	if p.alive() {
		return fmt.Errorf("%s runs already, pid %d", name, p.PID)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not within %v", startTimeout))
	defer cancel()
	kind, what, _ := strings.Cut(name, "/")
	switch kind {
	case "etcd":
		c, member, err := l.member(what)
		if err != nil {
			return err
		}
		if err := l.runMember(c, member); err != nil || !c.quorum() {
			return err // it serves once enough of the others run
		}
		return l.waitMember(ctx, c, member)
	case "operator":
		c, err := l.cluster(what)
		if err != nil {
			return err
		}
		return l.startOperator(c)
	case "apiserver":
		c, i, err := l.server(what)
		if err != nil {
			return err
		}
		if err := l.startServer(c, i); err != nil {
			return err
		}
		return l.waitServer(ctx, c, i)
	case "agent":
		if err := l.startAgent(n); err != nil {
			return err
		}
		return l.waitAgent(ctx, n)
	}
	return l.startPod(ctx, n, pod)
}

// process finds a process by its name; n is set for agents and pods, pod for pods.
func (l *Lab) process(name string) (p *Process, n *Node, pod *Pod, err error) {
	kind, what, _ := strings.Cut(name, "/")
	switch kind {
	case "etcd":
		c, member, err := l.member(what)
		if err != nil {
			return nil, nil, nil, err
		}
		return c.members()[member], nil, nil, nil
	case "operator":
		c, err := l.cluster(what)
		if err != nil {
			return nil, nil, nil, err
		}
		return &c.Operator, nil, nil, nil
	case "apiserver":
		c, i, err := l.server(what)
		if err != nil {
			return nil, nil, nil, err
		}
		return &c.APIServers[i], nil, nil, nil
	case "agent":
		_, n, err := l.node(what)
		if err != nil {
			return nil, nil, nil, err
		}
		return &n.Agent, n, nil, nil
	case "pod":
		n, pod, err := l.pod(what)
		if err != nil {
			return nil, nil, nil, err
		}
		return &pod.Workload, n, pod, nil
	}
	return nil, nil, nil, fmt.Errorf("process %q: want etcd/CLUSTER[/MEMBER], operator/CLUSTER, apiserver/CLUSTER[/REPLICA], agent/NODE or pod/POD", name)
}

// Exec replaces this process by a program in the namespace of a node, pod or cluster's store. It
// returns only if that fails.
func (l *Lab) Exec(where string, argv []string) error {
	name, err := l.netnsFor(where)
	if err != nil {
		return err
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	ns, err := netns.Open(name)
	if err != nil {
		return err
	}
	env := environ()
	if _, n, err := l.node(where); err == nil {
		env = append(env, "WEFT_SOCKET="+n.Socket)
	}
	return ns.Do(func() error {
		if err := unix.Exec(path, argv, env); err != nil {
			return fmt.Errorf("exec %s in %s: %w", argv[0], where, err)
		}
		return nil
	})
}

// netnsFor finds a namespace by what it belongs to.
func (l *Lab) netnsFor(where string) (string, error) {
	if where == "wan" {
		return l.WAN, nil
	}
	if _, n, err := l.node(where); err == nil {
		return n.Agent.Netns, nil
	}
	if _, p, err := l.pod(where); err == nil {
		return p.Workload.Netns, nil
	}
	if p, _, _, err := l.process(where); err == nil {
		return p.Netns, nil
	}
	return "", errors.New("no node, pod or process " + where + "; see 'weft lab status'")
}
