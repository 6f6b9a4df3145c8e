// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"

	"github.com/weft-net/weft/apiserver"
	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// Settings are what a cluster's API server knows of its cluster, as far as joining needs it.
type Settings struct {
	Cluster     string
	ID          uint32         // 0: what its cluster-config says
	MaxClusters uint32         // 0: what its cluster-config says
	Mode        string         // of the path between nodes: vxlan or native
	PodCIDRs    []netip.Prefix // beside those of its nodes: the range that nodes get theirs from
	URLs        []string       // of the API servers as other clusters reach them

	CAFile                    string // root that clients and servers lead to; two during a rotation
	CertFile, KeyFile         string // of the API server
	PeerCAFile, PeerCAKeyFile string // of the authority that signs the readers of other clusters
	MeshDir                   string // of the etcd client files of other clusters
}

// Validate says which setting is missing for a cluster to be joined, or to join.
func (s Settings) Validate() error {
	for _, f := range []struct{ key, value, todo string }{
		{"ca", s.CAFile, "it is the file of the cluster's root"},
		{"cert", s.CertFile, "it is the API server's certificate"},
		{"key", s.KeyFile, "it is the key of the API server's certificate"},
		{"peer-ca-cert", s.PeerCAFile, "it is the certificate of the authority for other clusters' readers, which 'weft cert' makes"},
		{"peer-ca-key", s.PeerCAKeyFile, "it is the key of the authority for other clusters' readers"},
		{"clustermesh-dir", s.MeshDir, "it is the directory in which a joined cluster's client file is written"},
	} {
		if f.value == "" {
			return fmt.Errorf("%s is not set: %s", f.key, f.todo)
		}
	}
	if err := schema.CheckClusterName(s.Cluster); err != nil {
		return err
	}
	if len(s.URLs) == 0 {
		return errors.New("replicas is not set: its urls are how other clusters reach the API servers")
	}
	if s.Mode == "" {
		return errors.New("mode is empty: it is that of the agents, vxlan or native")
	}
	return nil
}

// shown returns the API server's certificate with its root, as a joiner has to see it, and the root.
func (s Settings) shown() (tls.Certificate, *x509.Certificate, error) {
	pair, err := trust.ReadPair(s.CertFile, s.KeyFile)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	bundle, err := trust.ReadCertificates(s.CAFile)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	pair, root, err := trust.WithRoot(pair, bundle)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("%s does not lead to a root of %s: %w", s.CertFile, s.CAFile, err)
	}
	return pair, root, trust.CheckRoot(root)
}

// knowledge is what a cluster knows of itself and of others, at one revision of its store.
type knowledge struct {
	facts    Facts
	others   []Known
	peers    map[string]schema.Peer // those that left among them
	revision int64
}

// learn reads what a cluster knows.
func learn(ctx context.Context, c *kvstore.Client, s Settings) (knowledge, error) {
	_, root, err := s.shown()
	if err != nil {
		return knowledge{}, err
	}
	k := knowledge{
		facts: Facts{Name: s.Cluster, ID: s.ID, MaxClusters: s.MaxClusters, Mode: s.Mode, Endpoints: s.URLs, Root: root},
		peers: map[string]schema.Peer{},
	}
	list, err := c.List(ctx, schema.PeersPrefix, kvstore.ListOptions{})
	if err != nil {
		return knowledge{}, err
	}
	k.revision = list.Revision
	codec := schema.Peers()
	for _, kv := range list.KVs {
		name, err := codec.ParseKey(kv.Key[len(codec.Prefix):])
		if err != nil {
			return knowledge{}, err
		}
		p, err := codec.Decode(name, kv.Value)
		if err != nil {
			return knowledge{}, err
		}
		k.peers[name] = p
		if p.State != schema.PeerLeft {
			k.others = append(k.others, Known{name, p.ID, p.PodCIDRs, p.Root})
		}
	}
	if err := k.learnConfigs(ctx, c); err != nil {
		return knowledge{}, err
	}
	own, err := podCIDRs(ctx, c, schema.Nodes(schema.Scope{Cluster: s.Cluster, ClusterID: k.facts.ID, MaxClusters: k.facts.MaxClusters}))
	if err != nil {
		return knowledge{}, err
	}
	k.facts.PodCIDRs = aggregate(append(own, s.PodCIDRs...))
	if len(k.facts.PodCIDRs) > maxCIDRs {
		return knowledge{}, fmt.Errorf("the nodes have %d pod CIDRs that are no neighbours: set pod-cidrs to the range that nodes get theirs from", len(k.facts.PodCIDRs))
	}
	return k, nil
}

// learnConfigs reads the cluster-configs in the own store: ours, and those of clusters that are
// mirrored, whether they joined or were configured by hand.
func (k *knowledge) learnConfigs(ctx context.Context, c *kvstore.Client) error {
	configs, err := list(ctx, c, schema.ClusterConfigs())
	if err != nil {
		return err
	}
	own := configs[k.facts.Name]
	if k.facts.ID == 0 {
		k.facts.ID = own.ID
	}
	if k.facts.MaxClusters == 0 {
		k.facts.MaxClusters = max(own.MaxConnectedClusters, 255)
	}
	switch {
	case k.facts.ID == 0:
		return fmt.Errorf("no cluster-config of %s in the store: let its operator run, it says the cluster's id", k.facts.Name)
	case own.ID != 0 && own.ID != k.facts.ID:
		return fmt.Errorf("the cluster's id is %d in the settings and %d in the store: which is it", k.facts.ID, own.ID)
	}
	for name, config := range configs {
		_, joined := k.peers[name] // its pins say more, and one that left may have left this behind
		if name == k.facts.Name || joined || config.ID == 0 {
			continue
		}
		cidrs, err := podCIDRs(ctx, c, schema.Nodes(schema.Scope{Cluster: name, ClusterID: config.ID, MaxClusters: k.facts.MaxClusters, Cached: true}))
		if err != nil {
			return err
		}
		k.others = append(k.others, Known{Name: name, ID: config.ID, PodCIDRs: aggregate(cidrs)})
	}
	return nil
}

// podCIDRs reads those of the nodes of one cluster. A row that cannot be read is left out: nobody
// uses it.
func podCIDRs(ctx context.Context, c *kvstore.Client, codec schema.Codec[schema.NodeKey, schema.Node]) ([]netip.Prefix, error) {
	list, err := c.List(ctx, codec.Prefix, kvstore.ListOptions{})
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, kv := range list.KVs {
		key, err := codec.ParseKey(kv.Key[len(codec.Prefix):])
		if err != nil {
			continue
		}
		if n, err := codec.Decode(key, kv.Value); err == nil {
			out = append(out, n.PodCIDRs...)
		}
	}
	return out, nil
}

// SettingsOf takes what joining needs from the settings of an API server.
func SettingsOf(cfg apiserver.Config) Settings {
	s := Settings{
		Cluster: cfg.Cluster, ID: cfg.ClusterID, MaxClusters: cfg.MaxClusters, Mode: cfg.Join.Mode, PodCIDRs: cfg.Join.PodCIDRs,
		CAFile: cfg.CAFile, CertFile: cfg.CertFile, KeyFile: cfg.KeyFile,
		PeerCAFile: cfg.Join.PeerCACert, PeerCAKeyFile: cfg.Join.PeerCAKey, MeshDir: cfg.MeshDir,
	}
	for _, r := range cfg.Replicas {
		s.URLs = append(s.URLs, r.URLs...)
	}
	return s
}
