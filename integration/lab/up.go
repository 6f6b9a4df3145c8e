// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// startTimeout bounds each wait of Up for something that has been started.
const startTimeout = 60 * time.Second

// Up builds a lab and returns when the mesh is synced and every cluster has had an answer from
// every other. What it does is told to p. If it fails, what was built stays for a look at the logs;
// Down removes it. Without a lab in the result nothing was built.
func Up(ctx context.Context, o Options, p *Progress) (*Lab, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("lab up: %w", err)
	}
	if err := makeRoom(ctx, o.Name, o.Dir); err != nil {
		return nil, fmt.Errorf("lab up: %w", err)
	}
	l := plan(o)
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("lab up: %w", err)
	}
	unlock, err := lock(ctx, l.Dir, noTurn)
	if err != nil {
		return nil, fmt.Errorf("lab up: %w", err)
	}
	defer unlock()
	if err := claim(o.Name, l.Dir); err != nil {
		return nil, fmt.Errorf("lab up: %w", err)
	}
	// Saved before anything stands: Down finds what there is also without, but says less.
	if err := l.save(); err != nil {
		return nil, fmt.Errorf("lab up: %w", err)
	}
	err = l.up(ctx, p)
	if ctx.Err() != nil {
		err = fmt.Errorf("lab up: interrupted; remove what stands with 'weft lab down%s'", flagsOf(o.Name, o.Dir))
	}
	return l, errors.Join(err, l.save())
}

// makeRoom removes what an earlier run left behind after a crash and would get in the way. A lab that
// stands, here or in another directory, is refused.
func makeRoom(ctx context.Context, name, dir string) error {
	unlock, err := lockIfThere(ctx, dir, noTurn)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := Open(dir); !errors.Is(err, ErrNotUp) {
		return standsIn(name, []string{dir})
	}
	mark, err := markOf(dir)
	if err != nil {
		return err
	}
	// Removed is by name: what has the name and is not of this directory would go too.
	dirs, processes, err := elsewhere(name, dir)
	switch {
	case err != nil:
		return err
	case len(dirs) > 0:
		return standsIn(name, dirs)
	case processes > 0 && mark != name:
		return fmt.Errorf("%d processes of a lab %q run, and there is none in %s; end them with 'weft lab down%s', or take another --name",
			processes, name, dir, flagsOf(name, dir))
	}
	return remove(ctx, name, dir)
}

// step is one thing that is done to build a lab. It may take startTimeout as many times as it waits for
// something.
type step struct {
	what  string
	do    func(context.Context) error
	waits int // 0: once
}

func (l *Lab) up(ctx context.Context, p *Progress) error {
	nodes, pods, servers := 0, 0, 0
	for _, c := range l.Clusters {
		nodes += len(c.Nodes)
		servers += len(c.APIServers)
	}
	for range l.pods() {
		pods++
	}
	steps := []step{
		{what: fmt.Sprintf("%d namespaces and the links between them", len(l.namespaces())), do: func(context.Context) error { return l.buildNetwork() }},
		{what: "certificates, configuration, a bpf file system", do: func(context.Context) error { return l.writeFiles() }},
		{what: fmt.Sprintf("%d stores with users and roles", len(l.Clusters)), do: l.startStores},
		{what: fmt.Sprintf("%d API servers", servers), do: l.startServers},
		{what: fmt.Sprintf("%d operators and %d agents", len(l.Clusters), nodes), do: l.startAgents},
		{what: fmt.Sprintf("%d pods", pods), do: l.startPods},
		{what: "two services in every cluster, one of them global", do: l.addServices},
	}
	if servers > 0 && !l.Unjoined && l.pairs() > 0 {
		steps = append(steps, step{what: fmt.Sprintf("%d clusters joined by token", len(l.Clusters)), do: l.joinClusters, waits: l.pairs()})
	}
	steps = append(steps, step{what: "mesh synced", do: l.waitSynced})
	if !l.Unjoined {
		steps = append(steps, step{what: "every cluster answers every other", do: l.waitReachable})
	}
	for _, s := range steps {
		if err := p.step(s.what, func() error {
			limit := time.Duration(max(1, s.waits)) * startTimeout
			ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %v", limit))
			defer cancel()
			return s.do(ctx)
		}); err != nil {
			return err
		}
		if err := l.save(); err != nil {
			return err
		}
	}
	return nil
}

// each runs f for every index at once and returns the first error.
func each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range n {
		g.Go(func() error { return f(ctx, i) })
	}
	return g.Wait()
}

func (l *Lab) writeFiles() error {
	if err := os.MkdirAll(l.BPFFS, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("bpf", l.BPFFS, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount a bpf file system on %s: %w", l.BPFFS, err)
	}
	for i := range l.Clusters {
		if err := l.writeCluster(&l.Clusters[i]); err != nil {
			return fmt.Errorf("files of cluster %s: %w", l.Clusters[i].Name, err)
		}
	}
	// Every node reads every other cluster with a certificate that the other one's authority
	// signed, so this comes after all authorities exist.
	for _, c := range l.Clusters {
		for _, n := range c.Nodes {
			if err := l.writeNode(c, n); err != nil {
				return fmt.Errorf("files of node %s: %w", n.Name, err)
			}
		}
	}
	return nil
}

// waitReady waits until a started process is ready, and says so if it ended instead.
func (l *Lab) waitReady(ctx context.Context, p *Process, ready func() bool) error {
	err := until(ctx, func() (bool, error) {
		if ready() {
			return true, nil
		}
		if !p.alive() {
			return false, errors.New("it ended")
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w; its log is %s%s", p.Netns, err, p.Log, tail(p.Log))
	}
	return nil
}

// tail is the end of a log, for an error message.
func tail(file string) string {
	const most = 600
	b, err := os.ReadFile(file)
	if err != nil || len(b) == 0 {
		return ""
	}
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return ":\n" + string(b)
}

func (l *Lab) startAgents(ctx context.Context) error {
	for i := range l.Clusters {
		if err := l.startOperator(&l.Clusters[i]); err != nil {
			return err
		}
		for j := range l.Clusters[i].Nodes {
			if err := l.startAgent(&l.Clusters[i].Nodes[j]); err != nil {
				return err
			}
		}
	}
	var nodes []*Node
	for i := range l.Clusters {
		for j := range l.Clusters[i].Nodes {
			nodes = append(nodes, &l.Clusters[i].Nodes[j])
		}
	}
	return each(ctx, len(nodes), func(ctx context.Context, i int) error { return l.waitAgent(ctx, nodes[i]) })
}

func (l *Lab) startOperator(c *Cluster) error {
	return l.start(&c.Operator, "operator", "--config", operatorConfig(c))
}

func (l *Lab) startAgent(n *Node) error {
	return l.start(&n.Agent, "agent", "--config", n.Config)
}

func (l *Lab) startPods(ctx context.Context) error {
	type at struct {
		n *Node
		p *Pod
	}
	var all []at
	for n, p := range l.pods() {
		all = append(all, at{n, p})
	}
	return each(ctx, len(all), func(ctx context.Context, i int) error { return l.startPod(ctx, all[i].n, all[i].p) })
}

// startPod starts the pod's workload and makes its endpoint once the workload serves: an endpoint is
// a backend from the moment it is there.
func (l *Lab) startPod(ctx context.Context, n *Node, p *Pod) error {
	ready := p.Workload.Log + ".ready"
	if err := os.Remove(ready); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("pod %s: %w", p.Name, err)
	}
	err := l.start(&p.Workload, "lab", "workload", "--pod", p.Name, "--cluster", p.Cluster, "--node", p.Node, "--ready", ready)
	if err != nil {
		return fmt.Errorf("pod %s: %w", p.Name, err)
	}
	if err := l.waitReady(ctx, &p.Workload, func() bool {
		_, err := os.Stat(ready)
		return err == nil
	}); err != nil {
		return err
	}
	if err := l.addEndpoint(ctx, n, p); err != nil {
		// A pod is all of it or nothing, so that it can be started again.
		return errors.Join(fmt.Errorf("pod %s: %w", p.Name, err), p.Workload.end(ctx, syscall.SIGKILL))
	}
	return nil
}

func (l *Lab) addServices(ctx context.Context) error {
	return each(ctx, len(l.Clusters), func(ctx context.Context, i int) error {
		c := &l.Clusters[i]
		for _, s := range []Service{c.Service, c.Self} {
			if err := l.run(ctx, c.Operator.Netns, "service", "add", "-f", s.File, "--etcd", c.EtcdConfig); err != nil {
				return err
			}
		}
		return nil
	})
}

// Progress tells a person what happens.
type Progress struct {
	Print func(format string, args ...any) // nil: silent
}

func (p *Progress) say(format string, args ...any) {
	if p != nil && p.Print != nil {
		p.Print(format+"\n", args...)
	}
}

// step does one thing and says how it went and how long it took.
func (p *Progress) step(what string, do func() error) error {
	begin := time.Now()
	if err := do(); err != nil {
		p.say("✗ %s", what)
		return fmt.Errorf("%s: %w", what, err)
	}
	p.say("✓ %-44s %6.2f s", what, time.Since(begin).Seconds())
	return nil
}
