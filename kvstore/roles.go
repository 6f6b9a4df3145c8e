// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"go.etcd.io/etcd/api/v3/authpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore/schema"
)

// Users are the common names of certificates. etcd takes the name of a client from its certificate.
const (
	// UserRoot may do everything; it is the one that Init needs once auth is on.
	UserRoot = "root"
	// UserRemote is any other cluster of the mesh.
	UserRemote = "remote"
)

// UserAdmin may do everything in one cluster's store. The blank name is Cilium's for an install
// without a cluster name.
func UserAdmin(cluster string) string { return named("admin", cluster) }

// UserOperator runs the once-per-cluster work.
func UserOperator(cluster string) string { return named("operator", cluster) }

// UserAPIServer is an API server: it reads what it serves, and writes the copies of remote clusters.
func UserAPIServer(cluster string) string { return named("apiserver", cluster) }

// UserLocal reads the mirror of remote clusters.
func UserLocal(cluster string) string { return named("local", cluster) }

// UserNode is the agent of one node.
func UserNode(node string) string { return named("node", node) }

// UserRemoteCluster is one other cluster of the mesh.
func UserRemoteCluster(cluster string) string { return named("remote", cluster) }

func named(role, name string) string {
	if name == "" {
		return role
	}
	return role + "-" + name
}

// permission is a right to one range of keys.
type permission struct {
	from, to string // to "": the one key
	write    bool   // and read
}

// under is a right to everything with a prefix. A prefix without a trailing slash is meant as it
// stands: the heartbeat is watched that way.
func under(prefix string, write bool) permission {
	return permission{prefix, clientv3.GetPrefixRangeEnd(prefix), write}
}

func exactly(key string, write bool) permission { return permission{key, "", write} }

func (p permission) kind() clientv3.PermissionType {
	if p.write {
		return clientv3.PermissionType(authpb.READWRITE)
	}
	return clientv3.PermissionType(authpb.READ)
}

func (p permission) String() string {
	verb := "read "
	if p.write {
		verb = "read and write "
	}
	if p.to == "" {
		return verb + p.from
	}
	return verb + p.from + "*"
}

// role is a name with rights.
type role struct {
	name   string
	rights []permission
}

// user is a name with roles.
type user struct {
	name  string
	roles []string
}

// roleRoot is built into etcd.
const roleRoot = "root"

// accounts are the roles and users of a store. Rights are the least that the work needs; what a
// node may write of addresses and identities is not bounded further, because their keys do not
// name the node.
func accounts(cfg InitConfig) ([]role, []user) {
	const (
		read  = false
		write = true
	)
	roles := []role{
		{"local", []permission{
			under(schema.HeartbeatReadPrefix, read),
			under(schema.CachePrefix, read),
			under(schema.ClusterConfigPrefix, read),
			under(schema.SyncedPrefix, read),
			exactly(schema.EpochKey, read),
		}},
		{"remote", []permission{
			under(schema.HeartbeatReadPrefix, read),
			under(schema.StatePrefix, read),
			exactly(schema.ClusterConfigPrefix+cfg.Cluster, read),
			under(schema.SyncedPrefix+cfg.Cluster+"/", read),
			exactly(schema.EpochKey, read),
			exactly(schema.DecisionKey, read),
			under(schema.OwnersPrefix, read),
		}},
		{"node", []permission{
			under("cilium/", read),
			under(schema.WeftPrefix, read),
			under(schema.IPsPrefix, write),
			under(schema.IdentitiesPrefix, write),
			under(schema.DefinitionsPrefix, write),
			under(schema.VIPsPrefix, write),
			exactly(schema.DecisionKey, write), // of a person at any node, for all
			under(schema.ForgetPrefix, write),  // the same
		}},
		{"operator", []permission{
			under("cilium/", read),
			under(schema.WeftPrefix, read),
			exactly(schema.HeartbeatKey, write),
			exactly(schema.ClusterConfigPrefix+cfg.Cluster, write),
			under(schema.SyncedPrefix+cfg.Cluster+"/", write),
			under(schema.ServicesPrefix+cfg.Cluster+"/", write),
			under(schema.IPsPrefix, write), // of nodes that are gone for good
			under(schema.IdentitiesPrefix, write),
			exactly(schema.EpochKey, write),
			exactly(schema.RestoredKey, write),
			under(schema.ElectionsPrefix, write),
			under(schema.DefinitionsPrefix, write), // what a lost store had, put back
			under(schema.VIPsPrefix, write),
			under(schema.PeersPrefix, write),
			under(schema.RestingPrefix, write),
			under(schema.OwnersPrefix, write), // its own, and those of nodes that are gone for good
			under(schema.EndpointsPrefix, write),
		}},
	}
	roles = append(roles, role{"apiserver", []permission{
		under("cilium/", read),
		under(schema.WeftPrefix, read),
		under(schema.CachePrefix, write),
		under(schema.ClusterConfigPrefix, write), // etcd cannot except our own
		under(schema.SyncedPrefix, write),
		under(schema.MirrorElectionsPrefix, write),
		under(schema.MirrorsPrefix, write),
		under(schema.ForgetPrefix, write),
		under(schema.TokensPrefix, write),
		under(schema.PeersPrefix, write),
	}})
	users := []user{
		{UserRoot, []string{roleRoot}},
		{UserAdmin(cfg.Cluster), []string{roleRoot}},
		{UserOperator(cfg.Cluster), []string{"operator"}},
		{UserAPIServer(cfg.Cluster), []string{"apiserver"}},
		{UserLocal(cfg.Cluster), []string{"local"}},
		{UserRemote, []string{"remote"}},
	}
	for _, n := range cfg.Nodes {
		name := UserNode(n)
		roles = append(roles, role{name, []permission{
			exactly(schema.NodesPrefix+cfg.Cluster+"/"+n, write),
			under(schema.EndpointsPrefix+n+"/", write),
			exactly(schema.OwnersPrefix+n, write),
		}})
		users = append(users, user{name, []string{"node", name}})
	}
	for _, c := range cfg.Remotes {
		users = append(users, user{UserRemoteCluster(c), []string{"remote"}})
	}
	return roles, users
}
