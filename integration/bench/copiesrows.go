// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore/schema"
)

// A simulated cluster: what the mesh is made for has 250 of them.
const (
	remoteNodes      = 100
	remoteIdentities = 100
	remoteEndpoints  = 1000
	remoteRows       = remoteNodes + remoteIdentities + remoteEndpoints
	maxRemotes       = 250 // each has a byte of the addresses for itself
)

// remoteScope is that of the i-th simulated cluster. Our own has the first number.
func remoteScope(i int) schema.Scope {
	return schema.Scope{Cluster: fmt.Sprintf("far%d", i), ClusterID: uint32(i + 2)}
}

// remoteAddress is the address of an endpoint: its node has a range of its own in that of the cluster.
func remoteAddress(s schema.Scope, endpoint int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(s.ClusterID), byte(endpoint % remoteNodes), byte(endpoint/remoteNodes + 1)})
}

func remoteHost(s schema.Scope, node int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, byte(s.ClusterID), byte(node), 1})
}

func remoteIdentity(s schema.Scope, i int) uint32 {
	return s.ClusterID<<16 | uint32(1000+i%remoteIdentities)
}

// remoteEndpoint is the row of an endpoint after it has changed a number of times.
func remoteEndpoint(s schema.Scope, endpoint, changes int) (key string, value []byte, err error) {
	codec := schema.IPs(s)
	k := schema.IPKey{Cluster: s.Cluster, Prefix: netip.PrefixFrom(remoteAddress(s, endpoint), 32)}
	value, err = codec.Encode(k, schema.IP{
		HostIP: remoteHost(s, endpoint%remoteNodes), ID: remoteIdentity(s, endpoint+changes),
		Workload: schema.Workload{Namespace: "default", Name: fmt.Sprintf("app-%d", endpoint)}.Pack(),
	})
	return codec.Prefix + codec.FormatKey(k), value, err
}

// remoteOps write all that the store of a simulated cluster has, below its prefix.
func remoteOps(s schema.Scope) (ops []clientv3.Op, err error) {
	put := func(key string, value []byte, perr error) {
		if err == nil {
			err = perr
		}
		ops = append(ops, clientv3.OpPut(remotePrefix(s.Cluster)+key, string(value)))
	}
	epoch, perr := schema.EncodeEpoch(schema.Epoch{ID: fmt.Sprintf("%032x", s.ClusterID), Created: time.Now()})
	put(schema.EpochKey, epoch, perr)
	put(schema.HeartbeatKey, schema.EncodeTime(time.Now()), nil)
	configs, nodes, identities := schema.ClusterConfigs(), schema.Nodes(s), schema.Identities(s)
	config, perr := configs.Encode(s.Cluster, schema.ClusterConfig{ID: s.ClusterID})
	put(configs.Prefix+s.Cluster, config, perr)
	for i := range remoteNodes {
		k := schema.NodeKey{Cluster: s.Cluster, Name: fmt.Sprintf("n%d", i)}
		b, perr := nodes.Encode(k, schema.Node{
			Name: k.Name, Cluster: s.Cluster, ClusterID: s.ClusterID,
			Addresses: []schema.NodeAddress{{Type: schema.InternalIP, IP: remoteHost(s, i)}},
			PodCIDRs:  []netip.Prefix{netip.PrefixFrom(remoteAddress(s, i), 24).Masked()},
		})
		put(nodes.Prefix+nodes.FormatKey(k), b, perr)
	}
	for i := range remoteIdentities {
		k := schema.IdentityKey{Cluster: s.Cluster, ID: remoteIdentity(s, i)}
		b, perr := identities.Encode(k, fmt.Sprintf("k8s:app=app-%d;k8s:%s=%s;", i, schema.ClusterLabelKey, s.Cluster))
		put(identities.Prefix+identities.FormatKey(k), b, perr)
	}
	for i := range remoteEndpoints {
		put(remoteEndpoint(s, i, 0))
	}
	return ops, err
}
