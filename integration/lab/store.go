// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxMembers is how many members a store may have.
const maxMembers = 5

// members are the processes of a cluster's store. All run in one namespace, on ports of their own.
func (c *Cluster) members() []*Process {
	all := []*Process{&c.Etcd}
	for i := range c.MoreEtcd {
		all = append(all, &c.MoreEtcd[i])
	}
	return all
}

// quorum says whether more than half of the members run.
func (c *Cluster) quorum() bool {
	alive := 0
	for _, p := range c.members() {
		if p.alive() {
			alive++
		}
	}
	return 2*alive > len(c.members())
}

// memberProcess is the name of a member's process: etcd/<cluster> is the first, etcd/<cluster>/2 the
// second.
func memberProcess(c *Cluster, member int) string {
	if member == 0 {
		return "etcd/" + c.Name
	}
	return "etcd/" + c.Name + "/" + strconv.Itoa(member+1)
}

// member finds one by the name of its process without etcd/.
func (l *Lab) member(name string) (*Cluster, int, error) {
	name, number, several := strings.Cut(name, "/")
	c, err := l.cluster(name)
	if err != nil || !several {
		return c, 0, err
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > len(c.members()) {
		return nil, 0, fmt.Errorf("no member %q of the store of %s; it has %d", number, name, len(c.members()))
	}
	return c, n - 1, nil
}

// memberName is what etcd calls a member.
func memberName(c *Cluster, member int) string {
	if len(c.MoreEtcd) == 0 {
		return "weft"
	}
	return "weft" + strconv.Itoa(member+1)
}

// memberURL is where clients reach a member.
func memberURL(c *Cluster, member int) string {
	u, err := url.Parse(c.Endpoint)
	if err != nil || member == 0 {
		return c.Endpoint
	}
	first := netip.MustParseAddrPort(u.Host)
	u.Host = netip.AddrPortFrom(first.Addr(), first.Port()+uint16(2*member)).String()
	return u.String()
}

// peerURL is where the members of one store reach each other.
func peerURL(member int) string { return "http://127.0.0.1:" + strconv.Itoa(etcdPort+1+2*member) }

// endpoints are the URLs of all members.
func (c *Cluster) endpoints() (urls []string) {
	for i := range c.members() {
		urls = append(urls, memberURL(c, i))
	}
	return urls
}

func memberFile(c *Cluster, member int, suffix string) string {
	name := "etcd"
	if member > 0 {
		name += strconv.Itoa(member + 1)
	}
	return filepath.Join(c.dir(), name+suffix)
}

func storeDir(c *Cluster, member int) string { return memberFile(c, member, "") }

// readyFile is written by a member's process when it serves. One of an earlier process is removed before
// the next starts.
func readyFile(c *Cluster, member int) string { return memberFile(c, member, ".ready") }

func (l *Lab) startStores(ctx context.Context) error {
	return each(ctx, len(l.Clusters), func(ctx context.Context, i int) error {
		c := &l.Clusters[i]
		if err := l.startEtcd(ctx, c); err != nil {
			return err
		}
		var nodes []string
		for _, n := range c.Nodes {
			nodes = append(nodes, n.Name)
		}
		return l.run(ctx, c.Operator.Netns, "store", "init", "--etcd", c.EtcdConfig, "--cluster", c.Name,
			"--nodes", strings.Join(nodes, ","))
	})
}

// startEtcd starts a cluster's store and waits until it serves. The same call brings it back after
// all of it was killed.
func (l *Lab) startEtcd(ctx context.Context, c *Cluster) error {
	// Of several members none serves before more than half of them run.
	for i := range c.members() {
		if err := l.runMember(c, i); err != nil {
			return err
		}
	}
	for i := range c.members() {
		if err := l.waitMember(ctx, c, i); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) runMember(c *Cluster, member int) error {
	if err := os.Remove(readyFile(c, member)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	cert, key := pair(c.dir(), "etcd")
	args := []string{"lab", "etcd", "--dir", storeDir(c, member), "--token", c.EtcdToken, "--url", memberURL(c, member),
		"--ca", c.StoreCA, "--cert", cert, "--key", key,
		"--ready", readyFile(c, member), "--quota", strconv.FormatInt(l.EtcdQuota, 10)}
	if len(c.MoreEtcd) > 0 {
		args = append(args, "--member", memberName(c, member), "--peer-url", peerURL(member))
		for i := range c.members() {
			args = append(args, "--cluster", memberName(c, i)+"="+peerURL(i))
		}
	}
	return l.start(c.members()[member], args...)
}

func (l *Lab) waitMember(ctx context.Context, c *Cluster, member int) error {
	return l.waitReady(ctx, c.members()[member], func() bool {
		_, err := os.Stat(readyFile(c, member))
		return err == nil
	})
}
