// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Rotation is how far a change of authorities has come. Between two steps whoever runs the cluster
// brings the files to where they are read:
//
//	Settled --Begin--> Begun --Switch--> Switched --Finish--> Settled
//	                     |
//	                     +----Abort----> Settled
//
// Begun: everybody is to trust the next ones beside the current ones, and nothing is signed by them
// yet. Switched: they sign, and what the old ones signed is still trusted.
type Rotation int

const (
	Settled Rotation = iota
	Begun
	Switched
)

func (r Rotation) String() string {
	return [...]string{"settled", "begun", "switched"}[r]
}

// Rotation tells how far a rotation has come.
func (d *Dir) Rotation() Rotation {
	switch {
	case d.has(oldDir):
		return Switched
	case d.has(nextDir):
		return Begun
	}
	return Settled
}

// Begin makes the next authorities and puts them beside the current ones into what others trust. With
// keepRoot the root stays and signs the next cluster CA and peer CA.
func (d *Dir) Begin(keepRoot bool) error {
	return d.alone(func() error { return d.begin(keepRoot) })
}

func (d *Dir) begin(keepRoot bool) error {
	switch d.Rotation() {
	case Switched:
		return fmt.Errorf("%s: the last rotation is not finished: run 'weft cert rotate finish' first", d.path)
	case Begun: // perhaps a crash was between the two steps below
		return d.writeBundles()
	}
	cluster, err := d.Cluster()
	if err != nil {
		return err
	}
	var root *Authority
	if keepRoot {
		if root, err = d.Authority(RoleRoot); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the root has to sign: name the file of its key with --root-key: %w", err)
		} else if err != nil {
			return err
		}
	}
	if err := d.generate(nextDir, cluster, root); err != nil {
		return err
	}
	return d.writeBundles()
}

// Switch lets the next authorities sign. Everybody must trust them by now.
func (d *Dir) Switch() error { return d.alone(d.switchOver) }

func (d *Dir) switchOver() error {
	switch d.Rotation() {
	case Settled:
		return fmt.Errorf("%s: no rotation has begun: run 'weft cert rotate begin' first", d.path)
	case Switched:
		return d.writeBundles()
	}
	if err := d.rename(d.file(currentDir), d.file(oldDir)); err != nil {
		return err
	}
	return d.moveNext()
}

// moveNext is the second half of Switch; Open does it where a crash was before it.
func (d *Dir) moveNext() error {
	if err := d.rename(d.file(nextDir), d.file(currentDir)); err != nil {
		return err
	}
	return d.writeBundles()
}

// Abort forgets the next authorities before they sign.
func (d *Dir) Abort() error { return d.alone(d.abort) }

func (d *Dir) abort() error {
	if d.Rotation() != Begun {
		return fmt.Errorf("%s: nothing to abort: the rotation is %s", d.path, d.Rotation())
	}
	return d.forget(nextDir)
}

// OldError refuses to forget authorities whose certificates are in use.
type OldError struct{ Files []string }

func (e *OldError) Error() string {
	return fmt.Sprintf("%d certificates are still signed by the old authorities: %s", len(e.Files), strings.Join(e.Files, ", "))
}

// Finish forgets the old authorities, with their keys: what they have signed is no longer good once
// everybody has the new CA files. Certificates in Issued that they signed are an *OldError, unless
// anyway is set; it cannot see those of other clusters.
func (d *Dir) Finish(anyway bool) error {
	return d.alone(func() error { return d.finish(anyway) })
}

func (d *Dir) finish(anyway bool) error {
	if d.Rotation() != Switched {
		return fmt.Errorf("%s: nothing to finish: the rotation is %s", d.path, d.Rotation())
	}
	if !anyway {
		old, err := d.signedByOld()
		if err != nil {
			return err
		}
		if len(old) > 0 {
			return &OldError{old}
		}
	}
	return d.forget(oldDir)
}

// forget removes authorities that others trusted. They are out of the way in one step.
func (d *Dir) forget(where string) error {
	gone := d.file(".gone-" + where)
	if err := d.rename(d.file(where), gone); err != nil {
		return err
	}
	if err := d.writeBundles(); err != nil {
		return err
	}
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("forget authorities: %w", err)
	}
	return nil
}

// signedByOld lists the files in Issued that the current authorities have not signed.
func (d *Dir) signedByOld() (files []string, err error) {
	all, errs := d.issued()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, file := range all {
		chain, err := ReadCertificates(file)
		if err != nil {
			return nil, err
		}
		if _, current, err := d.signer(chain); err != nil || !current {
			files = append(files, file)
		}
	}
	return files, nil
}
