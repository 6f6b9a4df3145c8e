// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"slices"
	"time"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/integration/lab"
)

// aThird is how many endpoints are more than a third of those that the first cluster has with them.
const aThird = 4

// thirdFaults are deletions that somebody really meant: a third of all endpoints of a cluster, by their
// owners, which is in force as fast as the deletion of one is, whether or not other rows are held.
func thirdFaults() []fault {
	return []fault{
		{name: "a third deleted", store: "east", before: spares(1 + aThird), breaking: func(t *trial) { t.dropThird() }},
		{
			name: "a third deleted before, in and after a hold", store: "east", long: true,
			before: func(t *trial) {
				t.m.t.Helper()
				spares(1 + aThird)(t)
				t.dropThird()
				spares(1 + aThird)(t)
			},
			breaking: dropThirdInHold,
			heal: func(t *trial) {
				t.m.t.Helper()
				silent := t.cluster.Nodes[1].Name
				t.m.lab("heal", "store/"+silent)
				// What it finds absent it keeps until the owner speaks again, which it does every minute or so.
				waitWithin(t.m.t, 3*patience, "end of the third on "+silent, func() bool {
					return !slices.ContainsFunc(t.spares, func(p lab.Pod) bool { return t.has(silent, p.Addresses[0].String()) })
				})
			},
			after: func(t *trial) {
				t.m.t.Helper()
				for _, c := range t.m.Clusters {
					for _, n := range c.Nodes {
						waitWithin(t.m.t, 3*patience, "end of the hold on "+n.Name, func() bool { return !t.holding(n.Name) })
					}
				}
				spares(1 + aThird)(t)
				t.dropThird()
			},
		},
	}
}

// dropThirdInHold deletes the third while rows are held: those of a node that cannot speak are, for as long
// as it cannot.
func dropThirdInHold(t *trial) {
	t.m.t.Helper()
	silent := t.cluster.Nodes[1].Name
	t.m.lab("cut", "store/"+silent)
	t.m.lab("store", "wipe", t.cluster.Name)
	for _, p := range t.spares {
		t.waitStored(p.Addresses[0].String())
	}
	speaking := t.cluster.Nodes[0].Name
	waitFor(t.m.t, "hold", func() bool { return t.holding(speaking) })
	t.dropThird(silent)
	if !t.holding(speaking) {
		t.m.t.Error("nothing was held any more while the third was deleted")
	}
}

// holding says whether a node holds rows of the cluster.
func (t *trial) holding(node string) (is bool) {
	t.m.t.Helper()
	t.ask(node, func(ctx context.Context, c api.AgentClient) error {
		list, err := c.HoldList(ctx, &api.HoldListRequest{Cluster: t.cluster.Name})
		is = list.GetHolding()
		return err
	})
	return is
}

// dropThird deletes one endpoint and then a third of all, and waits until each is gone from every map,
// but for those of nodes that cannot hear of it.
func (t *trial) dropThird(deaf ...string) {
	t.m.t.Helper()
	var hearing []string
	for _, c := range t.m.Clusters {
		for _, n := range c.Nodes {
			if len(deaf) == 0 || n.Name != deaf[0] {
				hearing = append(hearing, n.Name)
			}
		}
	}
	gone := func(pods []lab.Pod) time.Duration {
		begin := time.Now()
		t.drop(pods)
		t.waitGone(pods, hearing...)
		return time.Since(begin)
	}
	one, third := gone(t.spares[:1]), gone(t.spares[1:])
	t.m.t.Logf("one endpoint was gone from all maps after %v, a third of all after %v", one.Round(time.Millisecond), third.Round(time.Millisecond))
}
