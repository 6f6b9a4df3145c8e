// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package lab builds whole meshes on one Linux machine: per cluster an etcd, an operator and API servers, per
// node an agent, per pod a small workload, each a process of its own in a network namespace of its
// own, joined by a routed wide area network whose control and data links can be cut one by one. It
// needs no Kubernetes and no containers. It is the product's `weft lab`, the demo, and the test bed
// of everything end to end.
//
// It is not a way to run production clusters, and nothing below it imports it: only cmd and the
// end-to-end tests do.
package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// Mode says how packets cross from node to node.
type Mode string

// The modes of the datapath that a lab can be built in.
const (
	VXLAN  Mode = "vxlan"
	Native Mode = "native"
)

// Family says which address families the pods have.
type Family string

// The families a lab can be built with. With Only6 the nodes have no IPv4 address either.
const (
	Only4 Family = "4"
	Only6 Family = "6"
	Dual  Family = "dual"
)

func (f Family) has4() bool { return f != Only6 }
func (f Family) has6() bool { return f != Only4 }

// Limits of a lab: the address plan has one decimal digit group for each.
const (
	maxClusters = 8
	maxNodes    = 50
	maxPods     = 20
	maxServers  = 4
)

// Options describe a lab that does not exist yet.
type Options struct {
	Name     string // part of every namespace's name; default "lab"
	Dir      string // state directory, by its real path; default /run/weft/lab/<Name>
	Clusters int
	Nodes    int // per cluster
	Pods     int // per node
	Mode     Mode
	Family   Family
	WANMTU   int           // largest packet between clusters, bytes
	LeaseTTL time.Duration // how long a node's rows outlive its agent; 0: the agent's default
	// EtcdMembers is how many members each store has; 0 is one. EtcdQuota is how large each may get, bytes; 0: etcd's default.
	EtcdMembers int
	EtcdQuota   int64
	// APIServers is how many API servers each cluster has, through which alone the others reach it, after
	// they have joined with a token; 0: there are none, and the others reach its store.
	APIServers int
	Unjoined   bool   // the clusters are left apart, for somebody who joins them
	Weft       string // the weft binary that the lab's processes run
}

// DefaultOptions are two clusters of two nodes with two pods each, over VXLAN, with IPv4, that read each
// other's stores.
func DefaultOptions() Options {
	return Options{Name: "lab", Clusters: 2, Nodes: 2, Pods: 2, Mode: VXLAN, Family: Only4, WANMTU: 1400, EtcdMembers: 1}
}

// A name ends up in namespace names and in interface names of the switch.
var labName = regexp.MustCompile(`^[a-z][a-z0-9]{0,11}$`)

// Validate says what of the options cannot be built.
func (o Options) Validate() error {
	var errs []error
	if !labName.MatchString(o.Name) {
		errs = append(errs, fmt.Errorf("name %q: want 1 to 12 lower-case letters and digits, a letter first", o.Name))
	}
	within := func(what string, got, most int) {
		if got < 1 || got > most {
			errs = append(errs, fmt.Errorf("%s %d: want 1 to %d", what, got, most))
		}
	}
	within("clusters", o.Clusters, maxClusters)
	within("nodes", o.Nodes, maxNodes)
	within("pods", o.Pods, maxPods)
	within("etcd-members", max(o.EtcdMembers, 1), maxMembers)
	if o.APIServers < 0 || o.APIServers > maxServers {
		errs = append(errs, fmt.Errorf("apiservers %d: want 0 to %d", o.APIServers, maxServers))
	}
	if o.Unjoined && o.APIServers == 0 {
		errs = append(errs, errors.New("unjoined: want apiservers, by which clusters join"))
	}
	if o.EtcdQuota < 0 {
		errs = append(errs, fmt.Errorf("etcd-quota %d: want 0 or more bytes", o.EtcdQuota))
	}
	if o.Mode != VXLAN && o.Mode != Native {
		errs = append(errs, fmt.Errorf("mode %q: want vxlan or native", o.Mode))
	}
	if o.Family != Only4 && o.Family != Only6 && o.Family != Dual {
		errs = append(errs, fmt.Errorf("family %q: want 4, 6 or dual", o.Family))
	}
	// 1280 is the least an IPv6 link may have (RFC 8200), and VXLAN over IPv6 takes 70 of it.
	if o.WANMTU < 1350 || o.WANMTU > nodeMTU {
		errs = append(errs, fmt.Errorf("wan-mtu %d: want 1350 to %d", o.WANMTU, nodeMTU))
	}
	return errors.Join(errs...)
}

// DirOf is where a lab of that name keeps its state unless it is told otherwise.
func DirOf(name string) string { return filepath.Join("/run/weft/lab", name) }

// isDirOf says whether that is what a lab's directory is unless it is told otherwise.
func isDirOf(name, dir string) bool {
	path, err := realPath(DirOf(name))
	return dir == DirOf(name) || err == nil && dir == path
}

// bpfDir is where a lab's own bpf file system is mounted.
func bpfDir(dir string) string { return filepath.Join(dir, "bpf") }

// realPath is the one name of a directory that the kernel has for it: absolute, without a slash at the end,
// without symbolic links. What of it is not there yet stays as it is.
func realPath(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("directory of the lab: %w", err)
	}
	missing := ""
	for there := dir; ; there = filepath.Dir(there) {
		path, err := filepath.EvalSymlinks(there)
		if err == nil {
			return filepath.Join(path, missing), nil
		}
		if _, look := os.Lstat(there); look == nil || !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("directory %s of the lab: %w", dir, err)
		}
		missing = filepath.Join(filepath.Base(there), missing)
	}
}

// prefix begins the name of each namespace of a lab.
func prefix(name string) string { return "wl-" + name + "-" }
