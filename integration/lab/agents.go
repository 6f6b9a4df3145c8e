// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/internal/netns"
)

// callTimeout bounds one question to an agent. It is long because two cores run the whole lab.
const callTimeout = 20 * time.Second

// ask calls a node's agent over its socket.
func (n *Node) ask(ctx context.Context, do func(context.Context, api.AgentClient) error) error {
	client, conn, err := api.Dial(n.Socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := do(ctx, client); err != nil {
		return fmt.Errorf("agent of %s: %w", n.Name, err)
	}
	return nil
}

// waitAgent waits until the agent answers and its datapath is ready.
func (l *Lab) waitAgent(ctx context.Context, n *Node) error {
	return l.waitReady(ctx, &n.Agent, func() bool {
		return n.ask(ctx, func(ctx context.Context, c api.AgentClient) error {
			st, err := c.Status(ctx, &api.StatusRequest{})
			for _, line := range st.GetLines() {
				if line.Component == "datapath" && line.Health == api.Health_HEALTH_FAILED {
					return errors.New(line.Reason)
				}
			}
			return err
		}) == nil
	})
}

func (l *Lab) addEndpoint(ctx context.Context, n *Node, p *Pod) error {
	req := &api.EndpointAddRequest{
		Namespace: p.Namespace, Name: p.Name, Netns: filepath.Join(netns.Dir, p.Workload.Netns),
		NamedPorts: []*api.NamedPort{{Name: "http", Port: portHTTP, Protocol: "TCP"}},
	}
	for k, v := range p.Labels {
		req.Labels = append(req.Labels, k+"="+v)
	}
	return n.ask(ctx, func(ctx context.Context, c api.AgentClient) error {
		ep, err := c.EndpointAdd(ctx, req)
		if err != nil {
			return err
		}
		p.ID, p.Identity, p.Addresses = ep.Id, ep.Identity, nil
		for _, s := range ep.Addresses {
			addr, err := netip.ParseAddr(s)
			if err != nil {
				return fmt.Errorf("endpoint %s: %w", p.Name, err)
			}
			p.Addresses = append(p.Addresses, addr)
		}
		return nil
	})
}

func (l *Lab) deleteEndpoint(ctx context.Context, n *Node, p *Pod) error {
	err := n.ask(ctx, func(ctx context.Context, c api.AgentClient) error {
		_, err := c.EndpointDelete(ctx, &api.EndpointDeleteRequest{Namespace: p.Namespace, Name: p.Name})
		return err
	})
	if err == nil {
		p.ID, p.Identity, p.Addresses = 0, 0, nil
	}
	return err
}

// table reads the keys and values of one of the agent's tables.
func (n *Node) table(ctx context.Context, name string) (map[string]string, error) {
	rows := map[string]string{}
	err := n.ask(ctx, func(ctx context.Context, c api.AgentClient) error {
		stream, err := c.TableGet(ctx, &api.TableGetRequest{Table: name})
		if err != nil {
			return err
		}
		for {
			item, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if row := item.GetRow(); row != nil {
				rows[row.Key] = string(row.Value)
			}
		}
	})
	return rows, err
}

// waitSynced waits until every agent has read everything of every other cluster.
func (l *Lab) waitSynced(ctx context.Context) error {
	var nodes []*Node
	for i := range l.Clusters {
		for j := range l.Clusters[i].Nodes {
			nodes = append(nodes, &l.Clusters[i].Nodes[j])
		}
	}
	return each(ctx, len(nodes), func(ctx context.Context, i int) error {
		return l.waitNodeSynced(ctx, nodes[i])
	})
}

func (l *Lab) waitNodeSynced(ctx context.Context, n *Node) error {
	why := "it was not asked"
	c, err := l.cluster(n.Cluster)
	if err != nil {
		return err
	}
	peers, err := l.peers(c)
	if err != nil {
		return err
	}
	err = until(ctx, func() (bool, error) {
		var res *api.StatusResponse
		if err := n.ask(ctx, func(ctx context.Context, c api.AgentClient) (err error) {
			res, err = c.Status(ctx, &api.StatusRequest{})
			return err
		}); err != nil {
			why = err.Error()
			return false, nil
		}
		why = notSynced(res, peers)
		return why == "", nil
	})
	if err != nil {
		return fmt.Errorf("node %s: %w: %s", n.Name, err, why)
	}
	return nil
}

// notSynced says what of a status is not as it is in a healthy mesh with these remotes; empty: all is
// well.
func notSynced(res *api.StatusResponse, remotes []string) string {
	var why []string
	for _, line := range res.Lines {
		if line.Health == api.Health_HEALTH_FAILED {
			why = append(why, line.Component+": "+line.Reason)
		}
	}
	if len(res.Remotes) != len(remotes) {
		why = append(why, fmt.Sprintf("%d of %d remote clusters", len(res.Remotes), len(remotes)))
	}
	for _, r := range res.Remotes {
		if r.Health != api.Health_HEALTH_OK {
			why = append(why, "remote cluster "+r.Name+": "+r.State+" "+r.Reason)
		}
		for _, s := range r.Synced {
			if !s.Synced {
				why = append(why, "remote cluster "+r.Name+": "+s.Table+" not synced")
			}
		}
	}
	return strings.Join(why, "; ")
}

// waitReachable waits until a pod of every cluster has had an answer from a pod of every other.
func (l *Lab) waitReachable(ctx context.Context) error {
	for i := range l.Clusters {
		from := &l.Clusters[i].Nodes[0].Pods[0]
		for j := range l.Clusters {
			if i == j {
				continue
			}
			last := l.Clusters[j].Nodes[len(l.Clusters[j].Nodes)-1]
			for _, addr := range last.Pods[len(last.Pods)-1].Addresses {
				if err := l.waitAnswer(ctx, from, netip.AddrPortFrom(addr, portWho)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// waitAnswer asks from a pod until something answers.
func (l *Lab) waitAnswer(ctx context.Context, from *Pod, to netip.AddrPort) error {
	var last string
	err := until(ctx, func() (bool, error) {
		c, err := l.whoAnswers(from, to)
		if err != nil {
			return false, err
		}
		last = c.Error
		return c.Error == "", nil
	})
	if err != nil {
		return fmt.Errorf("%s to %s: %w: %s", from.Name, to, err, last)
	}
	return nil
}

// whoAnswers makes one connection out of a pod. The socket belongs to the namespace of the thread
// that makes it, so this needs no process in there.
func (l *Lab) whoAnswers(from *Pod, to netip.AddrPort) (Connect, error) {
	ns, err := netns.Open(from.Workload.Netns)
	if err != nil {
		return Connect{}, err
	}
	defer ns.Close()
	var c Connect
	err = ns.Do(func() error {
		c = Load{Target: to.String(), Timeout: 2 * time.Second}.once()
		return nil
	})
	return c, err
}
