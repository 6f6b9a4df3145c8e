// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"io"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/weft-net/weft/agent/api"
)

// Status is a lab with what its agents say of it now. It embeds the plan, so that a script finds
// everything in one object.
type Status struct {
	*Lab
	Judged []Judged `json:"judged"`
	// Cut are the links that are down, by the names of `weft lab cut`.
	Cut []string `json:"cut"`
	// Endpoints are those of the pods, by the pod's name, as their agents have them now.
	Endpoints map[string]Live `json:"endpoints"`
}

// Live is an endpoint as its agent has it.
type Live struct {
	Addresses []string `json:"addresses"`
	Identity  uint32   `json:"identity"`
	Labels    []string `json:"labels"`
	State     string   `json:"state"`
}

// Judged is one process or node and how it is.
type Judged struct {
	What      string            `json:"what"`
	Healthy   bool              `json:"healthy"`
	Reason    string            `json:"reason,omitempty"`
	Frontends map[string]string `json:"frontends,omitempty"` // of a node: the rows of its frontends table
}

// Status asks every agent. What cannot be asked is a reason, not an error.
func (l *Lab) Status(ctx context.Context) Status {
	st := Status{Lab: l, Cut: l.cuts(), Endpoints: map[string]Live{}}
	add := func(what string, p Process) bool {
		j := Judged{What: what, Healthy: p.alive()}
		if !j.Healthy {
			j.Reason = "does not run; bring it back with 'weft lab start " + what + "'"
		}
		st.Judged = append(st.Judged, j)
		return j.Healthy
	}
	for i := range l.Clusters {
		c := &l.Clusters[i]
		for m, p := range c.members() {
			add(memberProcess(c, m), *p)
		}
		add("operator/"+c.Name, c.Operator)
		for k := range c.APIServers {
			if add(serverProcess(c, k), c.APIServers[k]) {
				l.judgeServer(ctx, c, k, &st.Judged[len(st.Judged)-1])
			}
		}
		for k := range c.Nodes {
			n := &c.Nodes[k]
			if add("agent/"+n.Name, n.Agent) {
				l.judgeNode(ctx, c, n, &st.Judged[len(st.Judged)-1], st.Endpoints)
			}
			for _, p := range n.Pods {
				add("pod/"+p.Name, p.Workload)
			}
		}
	}
	return st
}

func (l *Lab) judgeNode(ctx context.Context, c *Cluster, n *Node, j *Judged, live map[string]Live) {
	peers, err := l.peers(c)
	if err != nil {
		j.Healthy, j.Reason = false, err.Error()
		return
	}
	err = n.ask(ctx, func(ctx context.Context, c api.AgentClient) error {
		res, err := c.Status(ctx, &api.StatusRequest{})
		if err == nil {
			j.Reason = notSynced(res, peers)
		}
		if err != nil {
			return err
		}
		list, err := c.EndpointList(ctx, &api.EndpointListRequest{})
		for _, e := range list.GetEndpoints() {
			live[e.Name] = Live{e.Addresses, e.Identity, e.Labels, e.State}
		}
		return err
	})
	if err == nil {
		j.Frontends, err = n.table(ctx, "frontends")
	}
	if err != nil {
		j.Reason = err.Error()
	}
	j.Healthy = j.Reason == ""
}

func (s Status) print(w io.Writer, format string) error {
	if format == "yaml" {
		b, err := yaml.Marshal(s)
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	}
	fmt.Fprintf(w, "lab %s: %s, family %s, %s\n", s.Name, s.Mode, s.Family, s.Dir)
	judged := map[string]Judged{}
	for _, j := range s.Judged {
		judged[j.What] = j
	}
	line := func(indent, what, more string) {
		j := judged[what]
		mark := "✓"
		if !j.Healthy {
			mark, more = "✗", j.Reason
		}
		fmt.Fprintf(w, "%s%s %-26s %s\n", indent, mark, what, more)
	}
	for _, c := range s.Clusters {
		fmt.Fprintf(w, "\n%s (id %d)\n", c.Name, c.ID)
		for m := range c.members() {
			line("  ", memberProcess(&c, m), memberURL(&c, m))
		}
		line("  ", "operator/"+c.Name, "")
		for k := range c.APIServers {
			line("  ", serverProcess(&c, k), s.serverURL(&c, k))
		}
		for _, n := range c.Nodes {
			line("  ", "agent/"+n.Name, words(n.Addresses)+"  pods "+words(n.PodCIDRs)+"  "+n.Socket)
			for _, p := range n.Pods {
				text := "no endpoint"
				if e, ok := s.Endpoints[p.Name]; ok {
					text = fmt.Sprintf("%s  identity %d  %s  %s", words(e.Addresses), e.Identity, e.State, words(e.Labels))
				}
				line("    ", "pod/"+p.Name, text)
			}
		}
	}
	if len(s.Cut) > 0 {
		fmt.Fprintf(w, "\ncut: %s; bring back with 'weft lab heal LINK'\n", strings.Join(s.Cut, ", "))
	}
	return nil
}

// err is what is not healthy, so that the exit code of a command says so.
func (s Status) err() error {
	var bad []string
	for _, j := range s.Judged {
		if !j.Healthy {
			bad = append(bad, j.What)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrUnhealthy, strings.Join(bad, ", "))
}

// words is a list as a person writes it.
func words[T any](list []T) string { return strings.Trim(fmt.Sprint(list), "[]") }
