// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
)

// nodeMTU is the largest packet on the links of nodes, bytes. The links between clusters carry less.
const nodeMTU = 1500

// Lab is everything about a lab that stands, and what `weft lab status -o json` prints. Scripts
// read it: fields are added, never renamed.
type Lab struct {
	Name      string    `json:"name"`
	Dir       string    `json:"dir"`
	Mode      Mode      `json:"mode"`
	Family    Family    `json:"family"`
	WANMTU    int       `json:"wanMTU"`
	LeaseTTL  string    `json:"leaseTTL,omitempty"`  // of the agents; empty: their default
	EtcdQuota int64     `json:"etcdQuota,omitempty"` // bytes of each store; 0: etcd's default
	Unjoined  bool      `json:"unjoined,omitempty"`  // the clusters were left apart
	WAN       string    `json:"wan"`                 // namespace of the router between the clusters
	BPFFS     string    `json:"bpffs"`               // mount of the lab's own bpf file system
	Weft      string    `json:"weft"`                // binary that the processes run
	Clusters  []Cluster `json:"clusters"`
}

// Cluster is one cluster of a lab.
type Cluster struct {
	Name         string         `json:"name"`
	ID           uint32         `json:"id"`
	Switch       string         `json:"switch"` // namespace with the bridges of the data and control networks
	Etcd         Process        `json:"etcd"`
	MoreEtcd     []Process      `json:"moreEtcd,omitempty"` // its other members
	Operator     Process        `json:"operator"`
	APIServers   []Process      `json:"apiServers,omitempty"` // what other clusters reach; none: the etcd
	Endpoint     string         `json:"endpoint"`             // URL of the etcd
	EtcdToken    string         `json:"etcdToken,omitempty"`  // what its cluster id is made of; empty: the default
	CA           string         `json:"ca"`                   // file of the root: whom its clients and API servers trust
	StoreCA      string         `json:"storeCA"`              // file: whom its etcd trusts
	PeerCA       string         `json:"peerCA"`               // file; signs the certificates of other clusters' readers
	AdminCert    string         `json:"adminCert"`
	AdminKey     string         `json:"adminKey"`
	RemoteCert   string         `json:"remoteCert"` // what other clusters read this one with that have not joined it
	RemoteKey    string         `json:"remoteKey"`
	EtcdConfig   string         `json:"etcdConfig"` // etcd client file of the administrator
	ServiceCIDRs []netip.Prefix `json:"serviceCIDRs"`
	Service      Service        `json:"service"` // global; its backends are the pods app=web
	Self         Service        `json:"self"`    // of this cluster only; its backend is the client
	Nodes        []Node         `json:"nodes"`
}

// dir is where the files of a cluster lie that are of no node.
func (c *Cluster) dir() string { return filepath.Dir(c.CA) }

// Service is the service that every lab has in every cluster.
type Service struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
	File      string       `json:"file"`
}

// Node is one node of a cluster.
type Node struct {
	Name      string         `json:"name"`
	Cluster   string         `json:"cluster"`
	Addresses []netip.Addr   `json:"addresses"` // on the data network
	Control   netip.Addr     `json:"control"`   // on the control network
	PodCIDRs  []netip.Prefix `json:"podCIDRs"`
	Dir       string         `json:"dir"`
	Socket    string         `json:"socket"`
	Config    string         `json:"config"`
	Agent     Process        `json:"agent"`
	Pods      []Pod          `json:"pods"`
}

// Pod is one workload and the endpoint it has.
type Pod struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace"`
	Cluster   string            `json:"cluster"`
	Node      string            `json:"node"`
	Labels    map[string]string `json:"labels"`
	Workload  Process           `json:"workload"`
	// What the agent gave the endpoint; empty while it has none.
	ID        uint32       `json:"id,omitempty"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Identity  uint32       `json:"identity,omitempty"`
}

// Process is one process of the lab. Its namespace stands also while it does not run.
type Process struct {
	Netns string `json:"netns"`
	PID   int    `json:"pid,omitempty"` // 0: never started or stopped by `weft lab kill`
	Start uint64 `json:"start,omitempty"`
	Log   string `json:"log,omitempty"`
}

// plan computes the whole lab from its options, addresses included. It touches nothing.
func plan(o Options) *Lab {
	l := &Lab{
		Name: o.Name, Dir: o.Dir, Mode: o.Mode, Family: o.Family, WANMTU: o.WANMTU, Weft: o.Weft,
		WAN: prefix(o.Name) + "wan", BPFFS: bpfDir(o.Dir),
	}
	l.EtcdQuota, l.Unjoined = o.EtcdQuota, o.Unjoined
	if o.LeaseTTL > 0 {
		l.LeaseTTL = o.LeaseTTL.String()
	}
	for c := 1; c <= o.Clusters; c++ {
		l.Clusters = append(l.Clusters, planCluster(o, c))
	}
	return l
}

func planCluster(o Options, c int) Cluster {
	// In the order of their ids, which begin at 1.
	name := [maxClusters]string{"east", "west", "north", "south", "fifth", "sixth", "seventh", "eighth"}[c-1]
	dir := filepath.Join(o.Dir, name)
	a := addressing{o.Family, c}
	cl := Cluster{
		Name: name, ID: uint32(c), Switch: prefix(o.Name) + name + "-net",
		Etcd:     Process{Netns: prefix(o.Name) + name + "-etcd", Log: filepath.Join(dir, "etcd.log")},
		Operator: Process{Netns: prefix(o.Name) + name + "-op", Log: filepath.Join(dir, "operator.log")},
		Endpoint: "https://" + netip.AddrPortFrom(a.control(hostEtcd), etcdPort).String(),
		// The cluster's directory is one that 'weft cert --dir' works on.
		CA: filepath.Join(dir, "ca.crt"), StoreCA: filepath.Join(dir, "store-ca.crt"), PeerCA: filepath.Join(dir, "current", "peer.crt"),
		EtcdConfig: filepath.Join(dir, "etcd.yaml"), ServiceCIDRs: a.services(),
		Service: Service{Namespace: "default", Name: "web", Addresses: a.vips(10), File: filepath.Join(dir, "web.yaml")},
		Self:    Service{Namespace: "default", Name: "self", Addresses: a.vips(11), File: filepath.Join(dir, "self.yaml")},
	}
	cl.AdminCert, cl.AdminKey = pair(dir, "admin")
	cl.RemoteCert, cl.RemoteKey = pair(dir, "remote")
	for i := 1; i < o.EtcdMembers; i++ {
		cl.MoreEtcd = append(cl.MoreEtcd, Process{Netns: cl.Etcd.Netns, Log: memberFile(&cl, i, ".log")})
	}
	for i := range o.APIServers {
		cl.APIServers = append(cl.APIServers, Process{
			Netns: prefix(o.Name) + name + "-api" + strconv.Itoa(i+1), Log: filepath.Join(dir, serverName(i)+".log"),
		})
	}
	for n := 1; n <= o.Nodes; n++ {
		node := Node{
			Name: name + "-" + strconv.Itoa(n), Cluster: name,
			Addresses: a.node(n), Control: a.control(hostNode + n), PodCIDRs: a.pods(n),
		}
		node.Dir = filepath.Join(o.Dir, node.Name)
		node.Socket = filepath.Join(node.Dir, "agent.sock")
		node.Config = filepath.Join(node.Dir, "agent.yaml")
		node.Agent = Process{Netns: prefix(o.Name) + node.Name, Log: filepath.Join(node.Dir, "agent.log")}
		for p := 1; p <= o.Pods; p++ {
			node.Pods = append(node.Pods, planPod(o, node, n, p))
		}
		cl.Nodes = append(cl.Nodes, node)
	}
	return cl
}

// planPod makes the first pod of a cluster's first node the client and all others backends; with a
// single pod in the cluster it is both.
func planPod(o Options, node Node, n, p int) Pod {
	role := "web"
	if n == 1 && p == 1 && o.Nodes*o.Pods > 1 {
		role = "client"
	}
	name := fmt.Sprintf("%s-%s-%d", role, node.Name, p)
	return Pod{
		Name: name, Namespace: "default", Cluster: node.Cluster, Node: node.Name,
		Labels:   map[string]string{"app": role},
		Workload: Process{Netns: prefix(o.Name) + name, Log: filepath.Join(node.Dir, name+".log")},
	}
}

// Numbers of hosts on the data and control networks.
const (
	hostRouter = 1
	hostEtcd   = 2
	hostOp     = 3
	hostServer = 4  // plus the API server's number, counted from 0
	hostNode   = 10 // plus the node's number
	etcdPort   = 2379
	serverPort = 32379
	joinPort   = 32380
)

// addressing gives the addresses of one cluster. The networks do not overlap between clusters,
// services excepted: a virtual address means something in its own cluster only.
type addressing struct {
	family  Family
	cluster int
}

func (a addressing) both(v4, v6 string) []netip.Addr {
	var as []netip.Addr
	if a.family.has4() {
		as = append(as, netip.MustParseAddr(v4))
	}
	if a.family.has6() {
		as = append(as, netip.MustParseAddr(v6))
	}
	return as
}

func (a addressing) prefixes(v4, v6 string) []netip.Prefix {
	var ps []netip.Prefix
	if a.family.has4() {
		ps = append(ps, netip.MustParsePrefix(v4))
	}
	if a.family.has6() {
		ps = append(ps, netip.MustParsePrefix(v6))
	}
	return ps
}

// data are a host's addresses on the data network.
func (a addressing) data(host int) []netip.Addr {
	return a.both(fmt.Sprintf("192.168.%d.%d", a.cluster, host), fmt.Sprintf("fd77:%x::%x", a.cluster, host))
}

func (a addressing) node(n int) []netip.Addr { return a.data(hostNode + n) }

// dataBits are the prefix lengths of the data network, in the order of data.
func bits(addr netip.Addr) int {
	if addr.Is4() {
		return 24
	}
	return 64
}

// control is a host's address on the control network: IPv4 wherever the lab has IPv4.
func (a addressing) control(host int) netip.Addr {
	if a.family.has4() {
		return netip.AddrFrom4([4]byte{192, 168, byte(100 + a.cluster), byte(host)})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd77:%x::%x", 0x100+a.cluster, host))
}

func (a addressing) pods(n int) []netip.Prefix {
	return a.prefixes(fmt.Sprintf("10.%d.%d.0/24", a.cluster, n), fmt.Sprintf("fd10:%x:%x::/64", a.cluster, n))
}

// podRange is what all nodes get their pods' addresses from.
func (a addressing) podRange() []netip.Prefix {
	return a.prefixes(fmt.Sprintf("10.%d.0.0/16", a.cluster), fmt.Sprintf("fd10:%x::/32", a.cluster))
}

func (a addressing) services() []netip.Prefix {
	return a.prefixes("10.96.0.0/16", "fd96::/112")
}

func (a addressing) vips(n int) []netip.Addr {
	return a.both(fmt.Sprintf("10.96.0.%d", n), fmt.Sprintf("fd96::%x", n))
}
