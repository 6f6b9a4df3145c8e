// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"errors"
	"fmt"
	"time"

	"github.com/weft-net/weft/internal/configfile"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// Config is everything an operator is told.
type Config struct {
	Name        string // of this candidate, shown as the leader's name
	Cluster     string
	ClusterID   uint32
	MaxClusters uint32 // 255 or 511, equal in the whole mesh
	Etcd        string // etcd client file of the cluster's store
	EtcdAdmin   string // etcd client file of the administrator, for what etcd with auth allows only to its root role; empty: etcd's
	MeshDir     string // of etcd client files of the other clusters, as the agents have; empty: freed numbers wait for nobody
	Metrics     string // address:port of the Prometheus metrics; empty: off
	StateDir    string // where the last good copy of the cluster's rows is kept; empty: in memory only
	Defragment  bool   // members one at a time, when much of their file is free; etcd asks for its root role

	LeaderTTL  time.Duration // how long a leader that died keeps others waiting
	Retry      time.Duration // pause after a lost leadership or an unreachable store
	Heartbeat  time.Duration // readers take twice 60 s of silence for a dead control plane
	IdentityGC time.Duration // between two rounds; not shorter than the lease of nodes
	Compact    time.Duration // between two compactions
	Keep       time.Duration // history that a compaction leaves, for watches that resume
	GoneAfter  time.Duration // how long a node has no row before rows that name it are removed
}

// DefaultConfig returns a Config that lacks only name, cluster, cluster-id and etcd. The heartbeat
// and the interval of the garbage collection are those that Cilium's readers and nodes expect.
func DefaultConfig() Config {
	return Config{
		MaxClusters: 255, LeaderTTL: 15 * time.Second, Retry: time.Second, Heartbeat: time.Minute,
		IdentityGC: kvstore.DefaultLeaseTTL, Compact: 5 * time.Minute, Keep: 10 * time.Minute,
		GoneAfter: 24 * time.Hour,
	}
}

// Validate returns all that is wrong, joined.
func (c Config) Validate() error {
	var errs []error
	if c.Name == "" {
		errs = append(errs, errors.New("name: is missing; give one that no other operator of the cluster has"))
	}
	if err := schema.CheckClusterName(c.Cluster); err != nil {
		errs = append(errs, fmt.Errorf("cluster: %w", err))
	}
	if c.MaxClusters != 255 && c.MaxClusters != 511 {
		errs = append(errs, fmt.Errorf("max-clusters: %d is neither 255 nor 511", c.MaxClusters))
	} else if err := schema.CheckClusterID(c.ClusterID, c.MaxClusters); err != nil {
		errs = append(errs, fmt.Errorf("cluster-id: %w", err))
	}
	for _, d := range []struct {
		key string
		v   time.Duration
	}{
		{"leader-ttl", c.LeaderTTL}, {"retry", c.Retry}, {"heartbeat", c.Heartbeat}, {"identity-gc", c.IdentityGC},
		{"compact", c.Compact}, {"keep", c.Keep}, {"gone-after", c.GoneAfter},
	} {
		if d.v <= 0 {
			errs = append(errs, fmt.Errorf("%s: %v is not a positive duration", d.key, d.v))
		}
	}
	if c.LeaderTTL > 0 && c.LeaderTTL < 2*time.Second {
		errs = append(errs, fmt.Errorf("leader-ttl: %v is too short; etcd counts leases in seconds, 15s is usual", c.LeaderTTL))
	}
	return errors.Join(errs...)
}

func (c Config) scope() schema.Scope {
	return schema.Scope{Cluster: c.Cluster, ClusterID: c.ClusterID, MaxClusters: c.MaxClusters}
}

// configFile is the YAML form of a Config: each field points at the setting that its key is for.
type configFile struct {
	Name        *string `json:"name"`
	Cluster     *string `json:"cluster"`
	ClusterID   *uint32 `json:"cluster-id"`
	MaxClusters *uint32 `json:"max-clusters"`
	Etcd        *string `json:"etcd"`
	EtcdAdmin   *string `json:"etcd-admin"`
	MeshDir     *string `json:"clustermesh-dir"`
	Metrics     *string `json:"metrics"`
	LeaderTTL   *string `json:"leader-ttl"`
	Heartbeat   *string `json:"heartbeat"`
	IdentityGC  *string `json:"identity-gc"`
	Compact     *string `json:"compact"`
	Keep        *string `json:"keep"`
	GoneAfter   *string `json:"gone-after"`
	StateDir    *string `json:"state-dir"`
	Defragment  *bool   `json:"defragment"`
}

// ReadConfig reads a YAML file on top of the defaults. A key that is not known is an error that
// names it.
func ReadConfig(file string) (Config, error) {
	return configfile.Read("operator configuration", file, parseConfig)
}

func parseConfig(b []byte) (Config, error) {
	c := DefaultConfig()
	var d configfile.Durations
	f := configFile{
		Name: &c.Name, Cluster: &c.Cluster, ClusterID: &c.ClusterID, MaxClusters: &c.MaxClusters,
		Etcd: &c.Etcd, EtcdAdmin: &c.EtcdAdmin, MeshDir: &c.MeshDir, Metrics: &c.Metrics,
		StateDir: &c.StateDir, Defragment: &c.Defragment,
		LeaderTTL:  d.Text("leader-ttl", &c.LeaderTTL),
		Heartbeat:  d.Text("heartbeat", &c.Heartbeat),
		IdentityGC: d.Text("identity-gc", &c.IdentityGC),
		Compact:    d.Text("compact", &c.Compact),
		Keep:       d.Text("keep", &c.Keep),
		GoneAfter:  d.Text("gone-after", &c.GoneAfter),
	}
	if err := configfile.Decode(b, &f, d); err != nil {
		return Config{}, err
	}
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}
