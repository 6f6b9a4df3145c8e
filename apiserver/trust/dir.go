// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// What lies in a directory of authorities. A rotation moves whole directories, so that a crash leaves
// authorities that fit each other.
const (
	currentDir = "current" // root, cluster CA and peer CA that sign now, with their keys
	nextDir    = "next"    // those that will; everybody is told of them first
	oldDir     = "old"     // those that did, until nothing that they signed is in use
	issuedDir  = "issued"  // what was signed, where nobody named another place

	bundleFile = "ca.crt"       // whom clients of the cluster, and its API servers, trust: roots
	storeFile  = "store-ca.crt" // whom its etcd trusts: cluster CAs

	lockFile = ".lock" // locked by who changes something
)

// Dir is a directory of a cluster's authorities. What changes it waits for other processes that do.
type Dir struct {
	path string
	// RootKey is the file of the root's key, for it is kept elsewhere. Empty: beside its certificate.
	RootKey string
}

// Create makes the authorities of a cluster in a directory that has none. Without a root it makes
// one, whose key is to be taken away and kept offline; with one, for instance of a company, that root
// signs, and its key is not copied.
func Create(path, cluster string, root *Authority) (*Dir, error) {
	d := &Dir{path: path}
	return d, d.alone(func() error { return d.create(cluster, root) })
}

func (d *Dir) create(cluster string, root *Authority) error {
	for _, name := range []string{currentDir, nextDir, oldDir} {
		if _, err := os.Stat(d.file(name)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s has authorities already (%s): nothing is replaced; see 'weft cert rotate'", d.path, name)
		}
	}
	if err := d.generate(currentDir, cluster, root); err != nil {
		return err
	}
	return d.writeBundles()
}

// Open returns a directory that Create has made. A rotation that a crash cut off goes on.
func Open(path string) (*Dir, error) {
	d := &Dir{path: path}
	if d.has(currentDir) {
		return d, nil
	}
	// Between its two steps a Switch has authorities under two other names: a crash cut it off, or another
	// process is at it, and has done it once we are alone.
	if d.has(oldDir) {
		if err := d.alone(func() error {
			if !d.cutOff() {
				return nil
			}
			return d.moveNext()
		}); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(d.file(currentDir)); err != nil {
		return nil, fmt.Errorf("open authorities: %w", err)
	}
	return d, nil
}

// cutOff reports whether a Switch has done its first half.
func (d *Dir) cutOff() bool { return !d.has(currentDir) && d.has(nextDir) && d.has(oldDir) }

// alone does something while no other process does.
func (d *Dir) alone(do func() error) error {
	if err := os.MkdirAll(d.path, dirMode); err != nil {
		return fmt.Errorf("lock authorities: %w", err)
	}
	f, err := os.OpenFile(d.file(lockFile), os.O_CREATE|os.O_RDWR, secretMode)
	if err != nil {
		return fmt.Errorf("lock authorities: %w", err)
	}
	defer f.Close() // ends the lock
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock authorities: %w", err)
	}
	if err := d.sweep(); err != nil {
		return err
	}
	return do()
}

// CAFile holds whom the cluster's clients and its API servers trust: its root, during a rotation two.
func (d *Dir) CAFile() string { return d.file(bundleFile) }

// StoreCAFile holds whom the cluster's etcd trusts, its clients and its members: the cluster CA.
func (d *Dir) StoreCAFile() string { return d.file(storeFile) }

// Issued is where certificates are written of which nobody says where.
func (d *Dir) Issued() string { return d.file(issuedDir) }

// Files are the certificate and key of the authority that signs for a role now.
func (d *Dir) Files(role Role) (certFile, keyFile string) { return d.files(currentDir, role) }

// Authority is the one that signs for a role now.
func (d *Dir) Authority(role Role) (*Authority, error) { return ReadAuthority(d.Files(role)) }

// Cluster is the name of the cluster.
func (d *Dir) Cluster() (string, error) {
	certs, err := d.certs(currentDir, RoleCluster)
	if err != nil {
		return "", err
	}
	if org := certs[0].Subject.Organization; len(org) == 1 {
		return org[0], nil
	}
	return "", fmt.Errorf("%s: certificate of the cluster CA %q does not say of which cluster it is", d.path, certs[0].Subject.CommonName)
}

// signs returns the certificates of all that sign or signed for a role, the current one first.
func (d *Dir) signs(role Role) (all []*x509.Certificate, err error) {
	for _, where := range []string{currentDir, nextDir, oldDir} {
		if where != currentDir && !d.has(where) {
			continue
		}
		certs, err := d.certs(where, role)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(all, certs[0].Equal) {
			all = append(all, certs[0])
		}
	}
	return all, nil
}

// writeBundles makes what others trust from what is there.
func (d *Dir) writeBundles() error {
	for role, file := range map[Role]string{RoleRoot: d.CAFile(), RoleCluster: d.StoreCAFile()} {
		certs, err := d.signs(role)
		if err != nil {
			return err
		}
		if err := WriteCertificates(file, certs); err != nil {
			return err
		}
	}
	return nil
}

// generate makes three authorities, or two below a root that there is, and shows them in one step.
func (d *Dir) generate(where, cluster string, root *Authority) (err error) {
	dir, err := os.MkdirTemp(d.path, ".new-*") // mode 0700
	if err != nil {
		return fmt.Errorf("make authorities: %w", err)
	}
	defer os.RemoveAll(dir) // nothing is there after the rename
	made := map[Role]*Authority{}
	if root == nil {
		if root, err = NewRoot(cluster, RootLife); err != nil {
			return err
		}
		made[RoleRoot] = root
	}
	for _, role := range []Role{RoleCluster, RolePeer} {
		if made[role], err = root.NewIntermediate(cluster, role, IntermediateLife); err != nil {
			return err
		}
	}
	temporary := &Dir{path: dir}
	certFile, _ := temporary.files("", RoleRoot)
	if err := WriteCertificates(certFile, root.Chain()); err != nil {
		return err
	}
	for role, a := range made {
		certFile, keyFile := temporary.files("", role)
		if err := WritePair(certFile, keyFile, a.Chain(), a.key); err != nil {
			return err
		}
	}
	return d.rename(dir, d.file(where))
}

// sweep removes what a crash has left half made or half removed: keys among it. The caller is alone.
func (d *Dir) sweep() error {
	for _, pattern := range []string{".new-*", ".gone-*"} {
		left, err := filepath.Glob(d.file(pattern))
		if err != nil {
			return fmt.Errorf("sweep authorities: %w", err)
		}
		for _, path := range left {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("sweep authorities: %w", err)
			}
		}
	}
	return nil
}

func (d *Dir) rename(from, to string) error {
	err := os.Rename(from, to)
	if err == nil {
		err = syncDir(d.path)
	}
	if err != nil {
		return fmt.Errorf("move authorities: %w", err)
	}
	return nil
}

func (d *Dir) file(name string) string { return filepath.Join(d.path, name) }

func (d *Dir) has(name string) bool {
	_, err := os.Stat(d.file(name))
	return err == nil
}

func (d *Dir) files(where string, role Role) (certFile, keyFile string) {
	name := map[Role]string{RoleRoot: "root", RoleCluster: "cluster", RolePeer: "peer"}[role]
	certFile, keyFile = filepath.Join(d.path, where, name+".crt"), filepath.Join(d.path, where, name+".key")
	if role == RoleRoot && d.RootKey != "" {
		keyFile = d.RootKey
	}
	return certFile, keyFile
}

func (d *Dir) certs(where string, role Role) ([]*x509.Certificate, error) {
	file, _ := d.files(where, role)
	return ReadCertificates(file)
}
