// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/weft-net/weft/kvstore"
)

func operatorConfig(c *Cluster) string { return filepath.Join(filepath.Dir(c.CA), "operator.yaml") }

// writeCluster makes a cluster's authority, the certificates it issues, and the files of its
// operator and administrator.
func (l *Lab) writeCluster(c *Cluster) error {
	dir := filepath.Dir(c.CA)
	a := addressing{l.Family, int(c.ID)}
	ca, err := newAuthority(c.Name, c.CA)
	if err != nil {
		return err
	}
	etcdAddrs := []netip.Addr{a.control(hostEtcd), netip.MustParseAddr("127.0.0.1")}
	leaves := []struct {
		leaf
		cert, key string
	}{
		{leaf{name: "etcd." + c.Name, server: true, addrs: etcdAddrs}, filepath.Join(dir, "etcd.crt"), filepath.Join(dir, "etcd.key")},
		{leaf{name: kvstore.UserRoot}, c.AdminCert, c.AdminKey},
		{leaf{name: kvstore.UserOperator(c.Name)}, filepath.Join(dir, "operator.crt"), filepath.Join(dir, "operator.key")},
	}
	for _, n := range c.Nodes {
		leaves = append(leaves, struct {
			leaf
			cert, key string
		}{leaf{name: kvstore.UserNode(n.Name)}, filepath.Join(n.Dir, "etcd.crt"), filepath.Join(n.Dir, "etcd.key")})
	}
	for _, lf := range leaves {
		if err := ca.issue(lf.leaf, lf.cert, lf.key); err != nil {
			return err
		}
	}
	if err := l.writeServers(c, ca); err != nil {
		return err
	}
	if err := writeEtcdClient(c.EtcdConfig, c.endpoints(), c.CA, c.AdminCert, c.AdminKey); err != nil {
		return err
	}
	etcd := filepath.Join(dir, "operator-etcd.yaml")
	if err := writeEtcdClient(etcd, c.endpoints(), c.CA, filepath.Join(dir, "operator.crt"), filepath.Join(dir, "operator.key")); err != nil {
		return err
	}
	if err := writeYAML(operatorConfig(c), map[string]any{
		"name": c.Name + "-operator", "cluster": c.Name, "cluster-id": c.ID, "etcd": etcd,
		"etcd-admin": c.EtcdConfig, "state-dir": filepath.Join(dir, "operator-state"),
	}); err != nil {
		return err
	}
	if err := writeYAML(c.Self.File, c.Self.definition("client", nil)); err != nil {
		return err
	}
	return writeYAML(c.Service.File, c.Service.definition("web", map[string]string{
		"service.cilium.io/global":   "true",
		"service.cilium.io/affinity": "local",
	}))
}

// definition is a service of the lab in the form that 'weft service add -f' reads.
func (s Service) definition(app string, annotations map[string]string) map[string]any {
	port := func(name string, number int, protocol string) map[string]any {
		return map[string]any{"name": name, "port": number, "protocol": protocol}
	}
	return map[string]any{
		"namespace": s.Namespace, "name": s.Name, "annotations": annotations, "vips": s.Addresses,
		"selector": map[string]string{"app": app},
		"ports": []any{
			port("http", portHTTP, "TCP"), port("who", portWho, "TCP"), port("who-udp", portWho, "UDP"),
			port("echo", portEcho, "TCP"), port("echo-udp", portEcho, "UDP"),
		},
	}
}

// writeNode writes what one agent reads: its own configuration, the way to its own store, and one
// file for each remote cluster.
func (l *Lab) writeNode(c Cluster, n Node) error {
	etcd := filepath.Join(n.Dir, "etcd.yaml")
	if err := writeEtcdClient(etcd, c.endpoints(), c.CA, filepath.Join(n.Dir, "etcd.crt"), filepath.Join(n.Dir, "etcd.key")); err != nil {
		return err
	}
	mesh := filepath.Join(n.Dir, "clustermesh")
	if err := l.writeMesh(mesh, &c); err != nil {
		return err
	}
	agent := map[string]any{
		"node": n.Name, "cluster": c.Name, "cluster-id": c.ID,
		"addresses": n.Addresses, "pod-cidrs": n.PodCIDRs, "service-cidrs": c.ServiceCIDRs,
		"family": string(l.Family), "mode": string(l.Mode), "underlay": dataDev,
		"bpffs": l.BPFFS, "state-dir": filepath.Join(n.Dir, "state"), "socket": n.Socket,
		"etcd": etcd, "clustermesh-dir": mesh,
		// A laptop's worth of maps: 64k flows instead of 512k.
		"map-flows": 64 << 10, "map-young-flows": 16 << 10, "map-ipcache": 64 << 10,
		"map-ipcache-prefixes": 4 << 10, "map-frontends": 16 << 10, "map-backends": 64 << 10,
	}
	if l.LeaseTTL != "" {
		agent["lease-ttl"] = l.LeaseTTL
	}
	return writeYAML(n.Config, agent)
}

// writeMesh writes a client file for each cluster but one into a directory.
func (l *Lab) writeMesh(dir string, own *Cluster) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, r := range l.Clusters {
		if r.ID == own.ID {
			continue
		}
		if err := writeEtcdClient(filepath.Join(dir, r.Name), l.face(&r), r.CA, r.RemoteCert, r.RemoteKey); err != nil {
			return err
		}
	}
	return nil
}

// writeEtcdClient writes an etcd client file in the format that all readers of such files share.
func writeEtcdClient(file string, endpoints []string, ca, cert, key string) error {
	return writeYAML(file, map[string]any{
		"endpoints": endpoints, "trusted-ca-file": ca, "cert-file": cert, "key-file": key,
	})
}

func writeYAML(file string, v any) error {
	b, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	head := "# Written by 'weft lab up'. " + strings.TrimSuffix(filepath.Base(file), ".yaml") + "\n"
	return writeFile(file, append([]byte(head), b...), 0o644)
}
