// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"github.com/weft-net/weft/apiserver/trust"
)

// files are what one peer is reached with. Whoever follows the directory takes a file that is called
// like a cluster for one, and no other: those beside it have a dot in their names.
type files struct {
	dir, peer string
}

func (f files) path(suffix string) string { return filepath.Join(f.dir, f.peer+suffix) }

// client is the etcd client file; that it is there makes the cluster a remote one.
func (f files) client() string { return f.path("") }
func (f files) cert() string   { return f.path(".crt") }
func (f files) key() string    { return f.path(".key") }
func (f files) ca() string     { return f.path(".ca.crt") }

// request returns the key for reading the peer as a user, and a request to certify it. A key that an
// unfinished join left is used again, for its token is good for no other.
func (f files) request(user string) (crypto.Signer, []byte, error) {
	key, err := trust.ReadKey(f.key())
	if errors.Is(err, fs.ErrNotExist) {
		fresh, err := trust.NewKey()
		if err != nil {
			return nil, nil, err
		}
		if err := trust.WriteKey(f.key(), fresh); err != nil {
			return nil, nil, err
		}
		key = fresh
	} else if err != nil {
		return nil, nil, fmt.Errorf("%w; remove it to begin anew", err)
	}
	csr, err := trust.NewCSR(user, key)
	return key, csr, err
}

// clientFile is the etcd client file of a peer.
type clientFile struct {
	Endpoints []string `json:"endpoints"`
	CA        string   `json:"trusted-ca-file"`
	Cert      string   `json:"cert-file"`
	Key       string   `json:"key-file"`
}

// write makes a peer one that is reached: with its root, our certificate for it, and the key of
// request. The last step, the rename of the client file, is the one that counts; what a crash
// leaves before it is written again by the next try.
func (f files) write(endpoints []string, root *x509.Certificate, chain trust.Chain) error {
	if err := trust.WriteCertificates(f.ca(), []*x509.Certificate{root}); err != nil {
		return err
	}
	if err := trust.WriteCertificates(f.cert(), chain); err != nil {
		return err
	}
	abs, err := filepath.Abs(f.dir)
	if err != nil {
		return fmt.Errorf("client file of %s: %w", f.peer, err)
	}
	there := files{abs, f.peer}
	text, err := yaml.Marshal(clientFile{endpoints, there.ca(), there.cert(), there.key()})
	if err != nil {
		return fmt.Errorf("client file of %s: %w", f.peer, err)
	}
	head := "# Cluster " + f.peer + " has joined; 'weft mesh leave " + f.peer + "' removes this.\n"
	tmp := f.path(".new")
	if err := os.WriteFile(tmp, append([]byte(head), text...), 0o644); err != nil {
		return fmt.Errorf("client file of %s: %w", f.peer, err)
	}
	if err := os.Rename(tmp, f.client()); err != nil {
		return fmt.Errorf("client file of %s: %w", f.peer, err)
	}
	return nil
}

// exists tells whether the peer has a client file.
func (f files) exists() (bool, error) {
	_, err := os.Stat(f.client())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// remove removes all files of a peer, the client file first: without it nobody reads the others.
func (f files) remove() error {
	for _, file := range []string{f.client(), f.key(), f.cert(), f.ca(), f.path(".new")} {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("leave %s: %w", f.peer, err)
		}
	}
	return nil
}
