// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/weft-net/weft/kvstore/schema"
)

// mesh is the directory of the client files of clusters that have joined, for all API servers: they are on
// one machine. Agents know those clusters by the copies that the API servers make.
func (c *Cluster) mesh() string { return filepath.Join(c.dir(), "clustermesh") }

// peers are the clusters that a cluster reaches. Where there are API servers those are the ones that it
// has joined, whoever did it; otherwise all others.
func (l *Lab) peers(c *Cluster) (names []string, err error) {
	if len(c.APIServers) == 0 {
		for _, r := range l.Clusters {
			if r.ID != c.ID {
				names = append(names, r.Name)
			}
		}
		return names, nil
	}
	entries, err := os.ReadDir(c.mesh())
	if err != nil {
		return nil, fmt.Errorf("clusters that %s has joined: %w", c.Name, err)
	}
	for _, e := range entries {
		// What lies beside a client file has a dot in its name, which no cluster has.
		if schema.CheckClusterName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// pairs is how many pairs of clusters there are.
func (l *Lab) pairs() int { return len(l.Clusters) * (len(l.Clusters) - 1) / 2 }

// joinClusters joins each pair of clusters, one after the other: each admission changes what the next one
// is judged by.
func (l *Lab) joinClusters(ctx context.Context) error {
	for i := range l.Clusters {
		for j := range l.Clusters[:i] {
			if err := l.join(ctx, &l.Clusters[j], &l.Clusters[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// join does what two administrators do: the token that one cluster makes is read by the other.
func (l *Lab) join(ctx context.Context, issuer, joiner *Cluster) error {
	token, complaint, err := l.pipe(ctx, issuer.APIServers[0].Netns, "",
		"mesh", "token", "create", "--config", serverConfig(issuer, 0), "--for", joiner.Name)
	if err != nil {
		return fmt.Errorf("token of %s for %s: %w: %s", issuer.Name, joiner.Name, err, complaint)
	}
	said, complaint, err := l.pipe(ctx, joiner.APIServers[0].Netns, token,
		"mesh", "join", "--config", serverConfig(joiner, 0), "--wait", startTimeout.String())
	if err != nil {
		return fmt.Errorf("%s joins %s: %w: %s%s", joiner.Name, issuer.Name, err, complaint, said)
	}
	return nil
}

// serverJoin is the part of an API server's settings by which its cluster is joined.
func (l *Lab) serverJoin(c *Cluster, i int) map[string]any {
	var endpoints []string
	for k := range c.APIServers {
		endpoints = append(endpoints, hostPort(l.serverAddr(c, k).Addr(), joinPort))
	}
	_, key := pair(filepath.Dir(c.PeerCA), strings.TrimSuffix(filepath.Base(c.PeerCA), ".crt"))
	return map[string]any{
		"listen": hostPort(l.serverAddr(c, i).Addr(), joinPort), "endpoints": endpoints,
		"peer-ca-cert": c.PeerCA, "peer-ca-key": key,
		"mode": string(l.Mode), "pod-cidrs": addressing{l.Family, int(c.ID)}.podRange(),
	}
}
