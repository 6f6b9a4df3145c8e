// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore"
)

func operatorConfig(c *Cluster) string { return filepath.Join(c.dir(), "operator.yaml") }

// writeCluster makes a cluster's authorities, the certificates it issues, and the files of its
// operator and administrator.
func (l *Lab) writeCluster(c *Cluster) error {
	dir, etcdAddr := c.dir(), addressing{l.Family, int(c.ID)}.control(hostEtcd)
	by, err := newIssuer(c)
	if err != nil {
		return err
	}
	if err := by.server(dir, "etcd", trust.Server{
		Name: "etcd." + c.Name, Hosts: []string{etcdAddr.String(), "127.0.0.1"}, Etcd: true,
	}); err != nil {
		return err
	}
	if err := by.user(dir, "admin", kvstore.UserRoot); err != nil {
		return err
	}
	if err := by.user(dir, "operator", kvstore.UserOperator(c.Name)); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		if err := by.user(n.Dir, "etcd", kvstore.UserNode(n.Name)); err != nil {
			return err
		}
	}
	if err := l.writeServers(c, by); err != nil {
		return err
	}
	if err := writeEtcdClient(c.EtcdConfig, c.endpoints(), c.CA, dir, "admin"); err != nil {
		return err
	}
	etcd := filepath.Join(dir, "operator-etcd.yaml")
	if err := writeEtcdClient(etcd, c.endpoints(), c.CA, dir, "operator"); err != nil {
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

// writeNode writes what one agent reads: its own configuration, the way to its own store, and, where
// there are no API servers, one file for each remote cluster.
func (l *Lab) writeNode(c Cluster, n Node) error {
	etcd := filepath.Join(n.Dir, "etcd.yaml")
	if err := writeEtcdClient(etcd, c.endpoints(), c.CA, n.Dir, "etcd"); err != nil {
		return err
	}
	mesh := "" // the API servers copy the other clusters
	if len(c.APIServers) == 0 {
		mesh = filepath.Join(n.Dir, "clustermesh")
		if err := l.writeMesh(mesh, &c); err != nil {
			return err
		}
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

// writeMesh writes a client file for the store of each cluster but one into a directory.
func (l *Lab) writeMesh(dir string, own *Cluster) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, r := range l.Clusters {
		if r.ID == own.ID {
			continue
		}
		if err := writeEtcdClient(filepath.Join(dir, r.Name), r.endpoints(), r.CA, r.dir(), "remote"); err != nil {
			return err
		}
	}
	return nil
}

// writeEtcdClient writes an etcd client file in the format that all readers of such files share, with the
// certificate that was issued under a name.
func writeEtcdClient(file string, endpoints []string, ca, dir, name string) error {
	cert, key := pair(dir, name)
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

// writeFile replaces a file in one step, so that whoever reads it sees the old one or the new one.
func writeFile(file string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(data); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Chmod(mode); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}
