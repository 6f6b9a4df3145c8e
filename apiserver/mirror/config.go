// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/weft-net/weft/clustermesh"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// Config says who we are and which remotes are copied. Name, Cluster, ClusterID and Dir are required.
type Config struct {
	// Name is that of this mirror, unique in the cluster.
	Name string
	// Cluster, ClusterID and MaxClusters (255 or 511) are ours.
	Cluster     string
	ClusterID   uint32
	MaxClusters uint32
	// Dir holds an etcd client file for each remote cluster, named as the cluster.
	Dir string
	// StateDir keeps by what the stores of remotes are known again, over restarts. Empty: in memory only.
	StateDir string
	// LeaderTTL is how long a leader that died keeps the others waiting. Default 15 s.
	LeaderTTL time.Duration
	// Grace is how long the copy of a remote stays after its client file was removed. Default 3 min, as
	// Cilium's mirror has it: a file that comes back meanwhile changes nothing.
	Grace time.Duration
	// Say is how often the leader says of each copy how it stands while nothing changes. Default 1 min.
	Say time.Duration
	// Look is how often the leader looks for what has changed. Default 500 ms.
	Look time.Duration
	// Retry is the pause after a lost leadership. Default 1 s.
	Retry time.Duration
	// Mesh says how remotes are read; who we are, Dir, Kept, Copies and Lineage are set for it.
	Mesh clustermesh.Config
	// Follow says how keys of our own store are followed. Its Source and Guard are not used.
	Follow kvstore.WatchConfig
}

// DefaultConfig returns a Config that lacks Name, Cluster, ClusterID and Dir.
func DefaultConfig() Config {
	return Config{
		MaxClusters: 255, LeaderTTL: 15 * time.Second, Grace: 3 * time.Minute, Say: time.Minute,
		Look: 500 * time.Millisecond, Retry: time.Second, Mesh: clustermesh.DefaultConfig(),
	}
}

// Validate returns all that is wrong, joined.
func (c Config) Validate() error {
	var errs []error
	if c.Name == "" {
		errs = append(errs, errors.New("name: is missing; give one that no other mirror of the cluster has"))
	}
	if err := schema.CheckClusterName(c.Cluster); err != nil {
		errs = append(errs, err)
	}
	if err := schema.CheckClusterID(c.ClusterID, c.MaxClusters); err != nil {
		errs = append(errs, err)
	}
	if c.Dir == "" {
		errs = append(errs, errors.New("directory of client files: is missing"))
	}
	for name, d := range map[string]time.Duration{
		"leader TTL": c.LeaderTTL, "grace": c.Grace, "say": c.Say, "look": c.Look, "retry": c.Retry,
	} {
		if d <= 0 {
			errs = append(errs, fmt.Errorf("%s %s: want more than nothing", name, d))
		}
	}
	return errors.Join(errs...)
}

// mesh is how remotes are read.
func (c Config) mesh() clustermesh.Config {
	m := c.Mesh
	m.Dir, m.Cluster, m.ClusterID, m.MaxClusters = c.Dir, c.Cluster, c.ClusterID, c.MaxClusters
	// What owners say is heard where a remote's store shows it; an API server shows none.
	m.Guard.Owners = true
	if c.StateDir != "" {
		m.Lineage = filepath.Join(c.StateDir, "lineage")
	}
	return m
}

func (c Config) scope() schema.Scope {
	return schema.Scope{Cluster: c.Cluster, ClusterID: c.ClusterID, MaxClusters: c.MaxClusters}
}

// ours is the guard of our own store, by which the claims of our own nodes are kept.
func (c Config) ours() kvstore.GuardConfig {
	g := kvstore.GuardConfig{Cluster: c.Cluster, Owners: true, Follow: c.Follow}
	if c.StateDir != "" {
		g.File = filepath.Join(c.StateDir, "lineage", c.Cluster)
	}
	return g
}
