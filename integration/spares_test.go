// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/integration/history"
	"github.com/weft-net/weft/integration/lab"
	"github.com/weft-net/weft/internal/netns"
)

// spareLabel is that of endpoints without a workload: nobody calls them, so that their end disturbs no
// client.
const spareLabel = "app=spare"

// spares makes so many on the first node of the cluster, for a fault's before.
func spares(count int) func(*trial) {
	return func(t *trial) {
		t.m.t.Helper()
		t.spares = t.addSpares(t.cluster.Nodes[0], count)
		t.waitHere(t.spares)
	}
}

// addSpares makes endpoints on a node.
func (o *observer) addSpares(n lab.Node, count int) (pods []lab.Pod) {
	o.m.t.Helper()
	for range count {
		o.made++
		p := lab.Pod{Name: fmt.Sprintf("spare-%d", o.made), Namespace: "default", Cluster: n.Cluster, Node: n.Name}
		// A name of the lab's, so that its end takes along what a failed test leaves.
		ns, err := netns.New("wl-" + o.m.name + "-" + p.Name)
		if err != nil {
			o.m.t.Fatal(err)
		}
		ns.Close()
		o.ask(n.Name, func(ctx context.Context, c api.AgentClient) error {
			ep, err := c.EndpointAdd(ctx, &api.EndpointAddRequest{
				Namespace: p.Namespace, Name: p.Name, Netns: filepath.Join(netns.Dir, ns.Name()), Labels: []string{spareLabel},
			})
			if err != nil {
				return err
			}
			p.ID, p.Identity = ep.Id, ep.Identity
			for _, a := range ep.Addresses {
				p.Addresses = append(p.Addresses, netip.MustParseAddr(a))
			}
			return nil
		})
		o.numbers[p.Identity] = true
		o.row(history.Born, p)
		pods = append(pods, p)
	}
	return pods
}

// drop deletes endpoints, all at once, as their owners do.
func (o *observer) drop(pods []lab.Pod) {
	o.m.t.Helper()
	var all sync.WaitGroup
	errs := make([]error, len(pods))
	for i, p := range pods {
		o.row(history.Died, p)
		all.Go(func() {
			errs[i] = o.call(p.Node, func(ctx context.Context, c api.AgentClient) error {
				_, err := c.EndpointDelete(ctx, &api.EndpointDeleteRequest{Namespace: p.Namespace, Name: p.Name})
				return err
			})
		})
	}
	all.Wait()
	for i, p := range pods {
		if errs[i] != nil {
			o.m.t.Fatal(errs[i])
		}
		ns, err := netns.Open("wl-" + o.m.name + "-" + p.Name)
		if err != nil {
			o.m.t.Fatal(err)
		}
		if err := ns.Delete(); err != nil {
			o.m.t.Fatal(err)
		}
	}
}

// waitHere waits until every node has the addresses.
func (o *observer) waitHere(pods []lab.Pod) { o.m.t.Helper(); o.waitMaps(pods, true) }

// waitGone waits until no node, or none of those that are named, has them.
func (o *observer) waitGone(pods []lab.Pod, nodes ...string) {
	o.m.t.Helper()
	o.waitMaps(pods, false, nodes...)
}

func (o *observer) waitMaps(pods []lab.Pod, want bool, nodes ...string) {
	o.m.t.Helper()
	if len(nodes) == 0 {
		for _, c := range o.m.Clusters {
			for _, n := range c.Nodes {
				nodes = append(nodes, n.Name)
			}
		}
	}
	waitFor(o.m.t, fmt.Sprintf("spares in the maps of %v: %v", nodes, want), func() bool {
		for _, p := range pods {
			for _, addr := range p.Addresses {
				for _, n := range nodes {
					if o.has(n, addr.String()) != want {
						return false
					}
				}
			}
		}
		return true
	})
}

func (o *observer) ask(node string, do func(context.Context, api.AgentClient) error) {
	o.m.t.Helper()
	if err := o.call(node, do); err != nil {
		o.m.t.Fatal(err)
	}
}

func (o *observer) call(node string, do func(context.Context, api.AgentClient) error) error {
	client, conn, err := api.Dial(filepath.Join(lab.DirOf(o.m.name), node, "agent.sock"))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(o.m.t.Context(), patience)
	defer cancel()
	return do(ctx, client)
}
