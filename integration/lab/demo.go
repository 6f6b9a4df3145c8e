// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

// askTimes is how many calls of the service the demo makes to show who answers.
const askTimes = 20

// Demo builds a lab, calls the global service from every cluster, takes all backends of the first
// cluster away and brings them back, and says what was seen. It fails where the traffic did not do
// what it should. The lab is removed in the end, whatever happened, unless keep is set.
func Demo(ctx context.Context, o Options, keep bool, p *Progress) (err error) {
	begin := time.Now()
	l, err := Up(ctx, o, p)
	if l == nil {
		return err // nothing was built, so nothing may be removed
	}
	if !keep {
		defer func() {
			// The lab goes also when the user has given up waiting.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*downTimeout)
			defer cancel()
			err = errors.Join(err, p.step("everything taken down again", func() error { return Down(ctx, o.Name, o.Dir) }))
		}()
	}
	if err != nil {
		return err
	}
	p.say("\n%d clusters joined in %.1f s. The global service %s/%s prefers local backends.\n",
		len(l.Clusters), time.Since(begin).Seconds(), l.Clusters[0].Service.Namespace, l.Clusters[0].Service.Name)
	if len(l.Clusters) < 2 {
		return errors.New("the demo needs two clusters to show a failover")
	}
	for i := range l.Clusters {
		if err := l.show(p, &l.Clusters[i], l.Clusters[i].Name); err != nil {
			return err
		}
	}
	// Its pods are others afterwards, which who keeps the lab wants to know.
	return update(ctx, l.Dir, func(l *Lab) error { return l.failover(ctx, p) })
}

// show asks the service from one cluster and expects every answer to come from another.
func (l *Lab) show(p *Progress, from *Cluster, want string) error {
	client := from.client()
	for _, vip := range from.Service.Addresses {
		by := map[string]int{}
		for range askTimes {
			c, err := l.whoAnswers(client, netip.AddrPortFrom(vip, portWho))
			if err != nil {
				return err
			}
			if c.Error != "" {
				return fmt.Errorf("%s calls %s: %s", client.Name, vip, c.Error)
			}
			if want != "" && c.Cluster != want {
				return fmt.Errorf("%s calls %s: answered by %s of %s, expected one of %s", client.Name, vip, c.Name, c.Cluster, want)
			}
			by[c.Name]++
		}
		var seen []string
		for _, name := range slices.Sorted(maps.Keys(by)) {
			seen = append(seen, fmt.Sprintf("%s %d×", name, by[name]))
		}
		p.say("  %-18s → %s: %s", client.Name, vip, strings.Join(seen, ", "))
	}
	return nil
}

// client is the pod that calls the service.
func (c *Cluster) client() *Pod { return &c.Nodes[0].Pods[0] }

// backends are the pods of the service, by name.
func (c *Cluster) backends() []string {
	var names []string
	for _, n := range c.Nodes {
		for _, p := range n.Pods {
			if p.Labels["app"] == "web" && p.Name != c.client().Name {
				names = append(names, p.Name)
			}
		}
	}
	return names
}

func (l *Lab) failover(ctx context.Context, p *Progress) error {
	first, second := &l.Clusters[0], &l.Clusters[1]
	target := netip.AddrPortFrom(first.Service.Addresses[0], portWho)
	p.say("")
	backends := first.backends()
	begin := time.Now()
	if err := p.step("kill every backend of "+first.Name, func() error {
		return each(ctx, len(backends), func(ctx context.Context, i int) error {
			return l.kill(ctx, "pod/"+backends[i], syscall.SIGKILL)
		})
	}); err != nil {
		return err
	}
	took, err := l.waitCluster(ctx, first.client(), target, second.Name)
	if err != nil {
		return err
	}
	p.say("✓ the traffic goes to %s, %.0f ms after the first kill and %.0f ms after the last", second.Name,
		ms(time.Since(begin)), ms(took))
	if err := l.show(p, first, second.Name); err != nil {
		return err
	}
	p.say("")
	if err := p.step("bring them back", func() error {
		return each(ctx, len(backends), func(ctx context.Context, i int) error {
			return l.startAgain(ctx, "pod/"+backends[i])
		})
	}); err != nil {
		return err
	}
	if took, err = l.waitCluster(ctx, first.client(), target, first.Name); err != nil {
		return err
	}
	p.say("✓ the traffic is back in %s, %.0f ms after the last start", first.Name, ms(took))
	if err := l.show(p, first, first.Name); err != nil {
		return err
	}
	p.say("")
	return nil
}

// waitCluster calls the service until a backend of that cluster answers, and returns how long that
// took. A call that fails meanwhile is not an error: its backend may have just died.
func (l *Lab) waitCluster(ctx context.Context, from *Pod, to netip.AddrPort, want string) (time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not within %v", startTimeout))
	defer cancel()
	begin := time.Now()
	last := "no answer"
	err := until(ctx, func() (bool, error) {
		c, err := l.whoAnswers(from, to)
		if err != nil {
			return false, err
		}
		last = c.Error
		if c.Error == "" {
			last = "answered by " + c.Cluster
		}
		return c.Error == "" && c.Cluster == want, nil
	})
	if err != nil {
		return 0, fmt.Errorf("wait until %s answers %s: %w: %s", want, from.Name, err, last)
	}
	return time.Since(begin), nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
