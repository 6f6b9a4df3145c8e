// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"time"

	"github.com/weft-net/weft/apiserver/cache"
	"github.com/weft-net/weft/internal/configfile"
	"github.com/weft-net/weft/kvstore/schema"
)

// Replica is one API server of the cluster as clients reach it.
type Replica struct {
	Name string   `json:"name"`
	URLs []string `json:"urls"`
}

// Limits bound what one user may take. A user is the name of a certificate: all remote clusters that
// use the name "remote" share its limits.
type Limits struct {
	Connections int     // open at once
	Streams     int     // open at once, of watches and long answers
	Watches     int     // open at once
	Requests    float64 // per second
	Bytes       float64 // of answers, per second
	Large       int64   // bytes of answers on their way to all users together
	// Stuck is how long a client may leave a message unread before its connection is cut off.
	Stuck time.Duration
}

// Config is everything an API server is told.
type Config struct {
	Name    string // of this replica, unique in the cluster
	Cluster string
	Etcd    string // etcd client file of the cluster's store
	// ClusterID and MaxClusters (255 or 511) are ours, MeshDir the directory of etcd client files of the
	// other clusters, which are copied into our store; empty: none is. StateDir keeps by what their stores
	// are known again, and what is served of our own when it was lost; empty: in memory only.
	ClusterID         uint32
	MaxClusters       uint32
	MeshDir, StateDir string

	Listen   string    // address:port
	Replicas []Replica // of the cluster, this one among them, as clients reach them

	CAFile            string // signs the clients
	CertFile, KeyFile string // the server's
	Metrics           string // address:port of the Prometheus metrics; empty: off

	Join Join

	History  cache.History
	Progress time.Duration // between two notifications of progress to a watch that asked for them
	// Coalesce is how long a stream that was told of a change is told of no other: what happens meanwhile
	// goes out together. 0: each change is told at once.
	Coalesce time.Duration
	Limits   Limits
}

// longestCoalesce is more than anybody waits for a change.
const longestCoalesce = time.Minute

// betweenTurns lies between what replicas do one after another.
const betweenTurns = 30 * time.Second

// turn is how long this replica waits with what no two replicas are to do at the same time.
func (c Config) turn() time.Duration {
	before := 0
	for _, r := range c.Replicas {
		if r.Name < c.Name {
			before++
		}
	}
	return time.Duration(before) * betweenTurns
}

// cache is how the store is held in memory.
func (c Config) cache() cache.Config {
	cc := cache.Config{Cluster: c.Cluster, History: c.History, HoldLonger: c.turn()}
	if c.StateDir != "" {
		cc.File = filepath.Join(c.StateDir, "view")
	}
	return cc
}

// DefaultConfig returns a Config that lacks names, files, addresses and replicas.
func DefaultConfig() Config {
	return Config{
		MaxClusters: 255,
		Join:        Join{Mode: modeVXLAN},
		History:     cache.History{Age: 10 * time.Minute, Revisions: 100_000, Bytes: 256 << 20},
		Progress:    time.Minute,
		Limits: Limits{
			Connections: 10_000, Streams: 20_000, Watches: 100_000, Requests: 10_000, Bytes: 1 << 30,
			Large: 256 << 20, Stuck: time.Minute,
		},
	}
}

// Validate returns all that is wrong, joined.
func (c Config) Validate() error {
	var errs []error
	add := func(key, format string, args ...any) { errs = append(errs, fmt.Errorf(key+": "+format, args...)) }
	if c.Name == "" {
		add("name", "is missing; give one that no other API server of the cluster has")
	}
	if err := schema.CheckClusterName(c.Cluster); err != nil {
		add("cluster", "%w", err)
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		add("listen", "%q is not address:port, like :32379", c.Listen)
	}
	for _, f := range []struct{ key, file string }{{"ca", c.CAFile}, {"cert", c.CertFile}, {"key", c.KeyFile}, {"etcd", c.Etcd}} {
		if f.file == "" {
			add(f.key, "is missing; it is the path of a file")
		}
	}
	found := false
	for _, r := range c.Replicas {
		found = found || r.Name == c.Name
		if r.Name == "" || len(r.URLs) == 0 {
			add("replicas", "each needs a name and urls")
		}
		for _, u := range r.URLs {
			if p, err := url.Parse(u); err != nil || p.Scheme != "https" || p.Port() == "" {
				add("replicas", "%q of %s is not an https URL with a port, like https://east.mesh.example:32379", u, r.Name)
			}
		}
	}
	if len(c.Replicas) > 0 && !found {
		add("replicas", "%q is not among them; clients would be led away from this server", c.Name)
	}
	if c.MeshDir != "" {
		if err := schema.CheckClusterID(c.ClusterID, c.MaxClusters); err != nil {
			add("cluster-id", "%w; clustermesh-dir needs it", err)
		}
	}
	if err := c.Join.validate(); err != nil {
		errs = append(errs, err)
	}
	if c.History.Age <= 0 || c.History.Revisions <= 0 || c.History.Bytes <= 0 {
		add("history", "age, revisions and bytes must be positive")
	}
	if c.Progress < 100*time.Millisecond {
		add("progress", "%v is too short", c.Progress)
	}
	if c.Coalesce < 0 || c.Coalesce > longestCoalesce {
		add("coalesce", "%v is not between 0 (off) and %v; 20ms saves most of what there is to save", c.Coalesce, longestCoalesce)
	}
	l := c.Limits
	if l.Connections <= 0 || l.Streams <= 0 || l.Watches <= 0 || l.Requests <= 0 || l.Bytes <= 0 || l.Large <= 0 || l.Stuck <= 0 {
		add("limits", "each must be positive")
	}
	return errors.Join(errs...)
}

// configFile is the YAML form of a Config: each field points at the setting that its key is for.
type configFile struct {
	Name             *string    `json:"name"`
	Cluster          *string    `json:"cluster"`
	Etcd             *string    `json:"etcd"`
	ClusterID        *uint32    `json:"cluster-id"`
	MaxClusters      *uint32    `json:"max-clusters"`
	MeshDir          *string    `json:"clustermesh-dir"`
	StateDir         *string    `json:"state-dir"`
	Listen           *string    `json:"listen"`
	Replicas         *[]Replica `json:"replicas"`
	CA               *string    `json:"ca"`
	Cert             *string    `json:"cert"`
	Key              *string    `json:"key"`
	Metrics          *string    `json:"metrics"`
	Join             *joinFile  `json:"join"`
	HistoryAge       *string    `json:"history-age"`
	HistoryRevisions *int       `json:"history-revisions"`
	HistoryBytes     *int64     `json:"history-bytes"`
	Progress         *string    `json:"progress"`
	Coalesce         *string    `json:"coalesce"`
	MaxConnections   *int       `json:"max-connections"`
	MaxStreams       *int       `json:"max-streams"`
	MaxWatches       *int       `json:"max-watches"`
	MaxRequests      *float64   `json:"max-requests"`
	MaxBytes         *float64   `json:"max-bytes"`
	LargeBytes       *int64     `json:"large-bytes"`
	Stuck            *string    `json:"stuck"`
}

// ReadConfig reads a YAML file on top of the defaults. A key that is not known is an error that
// names it.
func ReadConfig(file string) (Config, error) {
	return configfile.Read("API server configuration", file, parseConfig)
}

func parseConfig(b []byte) (Config, error) {
	c := DefaultConfig()
	var d configfile.Durations
	f := configFile{
		Name: &c.Name, Cluster: &c.Cluster, Etcd: &c.Etcd, Listen: &c.Listen, Replicas: &c.Replicas,
		ClusterID: &c.ClusterID, MaxClusters: &c.MaxClusters, MeshDir: &c.MeshDir, StateDir: &c.StateDir,
		CA: &c.CAFile, Cert: &c.CertFile, Key: &c.KeyFile, Metrics: &c.Metrics,
		Join:             joinFileOf(&c.Join),
		HistoryAge:       d.Text("history-age", &c.History.Age),
		HistoryRevisions: &c.History.Revisions,
		HistoryBytes:     &c.History.Bytes,
		Progress:         d.Text("progress", &c.Progress),
		Coalesce:         d.Text("coalesce", &c.Coalesce),
		MaxConnections:   &c.Limits.Connections,
		MaxStreams:       &c.Limits.Streams,
		MaxWatches:       &c.Limits.Watches,
		MaxRequests:      &c.Limits.Requests,
		MaxBytes:         &c.Limits.Bytes,
		LargeBytes:       &c.Limits.Large,
		Stuck:            d.Text("stuck", &c.Limits.Stuck),
	}
	if err := configfile.Decode(b, &f, d); err != nil {
		return Config{}, err
	}
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}
