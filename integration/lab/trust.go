// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"crypto"
	"os"
	"path/filepath"

	"github.com/weft-net/weft/apiserver/trust"
)

// issuer signs the certificates of one cluster, as 'weft cert' does. Each cluster has a root of its own,
// so no cluster can speak for another.
type issuer struct {
	cluster *trust.Authority // signs its own servers and users, and is all that its etcd trusts
	peers   *trust.Authority // signs the readers of other clusters
}

// newIssuer makes the authorities of a cluster, in its directory.
func newIssuer(c *Cluster) (*issuer, error) {
	// Made here, for the directory of authorities would be for its owner only.
	if err := os.MkdirAll(c.dir(), 0o755); err != nil {
		return nil, err
	}
	d, err := trust.Create(c.dir(), c.Name, nil)
	if err != nil {
		return nil, err
	}
	i := &issuer{}
	if i.cluster, err = d.Authority(trust.RoleCluster); err != nil {
		return nil, err
	}
	i.peers, err = d.Authority(trust.RolePeer)
	return i, err
}

// user writes the certificate of a user of the cluster's store, and its key, into files called name.
func (i *issuer) user(dir, name, user string) error {
	return issue(dir, name, func(key crypto.PublicKey) (trust.Chain, error) {
		return i.cluster.SignUser(key, user, trust.UserLife)
	})
}

// reader does the same for a user of another cluster. One that reads the etcd itself is signed by whom
// the etcd trusts.
func (i *issuer) reader(dir, name, user string, direct bool) error {
	by := i.peers
	if direct {
		by = i.cluster
	}
	return issue(dir, name, func(key crypto.PublicKey) (trust.Chain, error) {
		return by.SignUser(key, user, trust.PeerLife)
	})
}

// server does the same for a server.
func (i *issuer) server(dir, name string, s trust.Server) error {
	return issue(dir, name, func(key crypto.PublicKey) (trust.Chain, error) {
		return i.cluster.SignServer(key, s, trust.ServerLife)
	})
}

func issue(dir, name string, sign func(crypto.PublicKey) (trust.Chain, error)) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	_, _, _, err := trust.Issue(dir, name, sign)
	return err
}

// pair are the files that have been issued under a name.
func pair(dir, name string) (cert, key string) {
	return filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
}
