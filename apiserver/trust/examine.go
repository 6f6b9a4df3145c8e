// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"
)

// endsSoon is how long before its end an authority is spoken of: a change of authorities takes files
// to every machine of several clusters, and a peer CA with less signs nobody any more.
const endsSoon = MinPeerLife

// Files are what one side of a connection shows and trusts.
type Files struct {
	CA, Cert, Key string // empty: there is none
	// OwnCA says that CA is whom this side trusts. The other side, which judges Cert, may trust others:
	// that CA does not know who signed Cert is then no more than a warning.
	OwnCA bool
	Usage x509.ExtKeyUsage
	Host  string // under which a server is dialled; empty: not judged
}

// Examine judges files without a connection.
func (f Files) Examine() (found []Finding) {
	var roots []*x509.Certificate
	if f.CA != "" {
		certs, more := examineCA(f.CA)
		roots, found = certs, more
	}
	if f.Cert == "" {
		return found
	}
	chain, err := ReadCertificates(f.Cert)
	if err != nil {
		return append(found, unreadable(f.Cert, err))
	}
	if f.Key != "" {
		found = append(found, examineKey(f.Key, f.Cert, chain[0])...)
	}
	if f.CA == "" {
		leaf := chain[0]
		s := Shown{Subject: f.Cert, Chain: chain, Usage: f.Usage, Host: f.Host}
		more := slices.Concat(s.order(), s.dates(leaf, "it"), s.use(), s.host())
		if len(more) == 0 {
			more = []Finding{good(f.Cert, "%s %q is in force until %s; who trusts it was not asked: name a file with --ca", kindOf(leaf), leaf.Subject.CommonName, day(leaf.NotAfter))}
		}
		return append(found, more...)
	}
	if len(roots) == 0 {
		return found // said already
	}
	verdict := Explain(Shown{Subject: f.Cert, Chain: chain, Usage: f.Usage, Host: f.Host, Roots: roots, RootsOf: f.CA})
	for i, one := range verdict {
		if f.OwnCA && one.Cause == CauseCA {
			verdict[i].Level = Warning
			verdict[i].Text += "; that is good only if the other side trusts another CA"
		}
	}
	return append(found, verdict...)
}

// examineCA judges a file of those who are trusted.
func examineCA(file string) ([]*x509.Certificate, []Finding) {
	certs, err := ReadCertificates(file)
	if err != nil {
		return nil, []Finding{unreadable(file, err)}
	}
	var found []Finding
	clusters := map[string]bool{}
	for _, c := range certs {
		name, left := c.Subject.CommonName, time.Until(c.NotAfter)
		switch {
		case !c.IsCA:
			found = append(found, Finding{Bad, CauseUsage, file, fmt.Sprintf("%q is no authority: nothing that it signs is taken", name), "put the certificate of the root there"})
		case left < 0:
			found = append(found, Finding{Bad, CauseExpired, file, fmt.Sprintf("%s %q has expired on %s", kindOf(c), name, day(c.NotAfter)), "remove it; weft cert rotate makes new authorities"})
		case left < endsSoon:
			found = append(found, Finding{Warning, CauseEnding, file, fmt.Sprintf("%s %q ends on %s (%s)", kindOf(c), name, day(c.NotAfter), away(left)), "weft cert rotate begin"})
		default:
			found = append(found, good(file, "%s %q (%.8s) is good until %s", kindOf(c), name, FingerprintOf(c), day(c.NotAfter)))
		}
		for _, o := range c.Subject.Organization {
			clusters[o] = true
		}
	}
	if len(clusters) > 1 {
		found = append(found, Finding{Warning, CauseMerged, file, "it holds authorities of several clusters: each may speak for the others", "give every remote cluster a CA file of its own"})
	}
	return certs, found
}

// examineKey judges the key of a certificate.
func examineKey(file, certFile string, leaf *x509.Certificate) (found []Finding) {
	key, err := ReadKey(file)
	if err != nil {
		return []Finding{unreadable(file, err)}
	}
	if !samePublicKey(leaf.PublicKey, key.Public()) {
		found = append(found, Finding{Bad, CauseKey, file, fmt.Sprintf("is not the key of %q in %s", leaf.Subject.CommonName, certFile),
			"bring the key that was made with the certificate, or make both anew; an API server that runs keeps the last pair that fitted"})
	}
	return append(found, examineMode(file)...)
}

// examineMode finds keys that others can read.
func examineMode(file string) []Finding {
	info, err := os.Stat(file)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		return []Finding{{Warning, CauseMode, file, fmt.Sprintf("has mode %04o: others than its owner can read the key", info.Mode().Perm()), "chmod 600 " + file}}
	}
	return nil
}

func unreadable(file string, err error) Finding {
	f := Finding{Bad, CauseFile, file, err.Error(), "correct the path, or write the file anew"}
	var path *fs.PathError
	if errors.As(err, &path) {
		f.Text = path.Err.Error()
	}
	if errors.Is(err, fs.ErrPermission) {
		f.Remedy = "run as the user who may read it"
	}
	return f
}

// Examine judges a cluster's authorities, what others are told of them, and what lies in Issued.
func (d *Dir) Examine() []Finding {
	found := d.examineRotation()
	for _, role := range []Role{RoleRoot, RoleCluster, RolePeer} {
		found = append(found, d.examineAuthority(role)...)
	}
	for _, bundle := range []struct {
		role Role
		file string
	}{{RoleRoot, d.CAFile()}, {RoleCluster, d.StoreCAFile()}} {
		want, err := d.signs(bundle.role)
		if err != nil {
			continue // said already
		}
		if got, err := ReadCertificates(bundle.file); err != nil || !slices.EqualFunc(got, want, (*x509.Certificate).Equal) {
			found = append(found, Finding{Bad, CauseRotation, bundle.file, "does not hold the authorities that are here", "run the last step of 'weft cert rotate' again"})
		}
	}
	files, errs := d.issued()
	for _, err := range errs {
		found = append(found, unreadable(d.Issued(), err))
	}
	for _, file := range files {
		found = append(found, d.examineIssued(file)...)
	}
	return found
}

func (d *Dir) examineRotation() []Finding {
	switch d.Rotation() {
	case Begun:
		return []Finding{{Warning, CauseRotation, d.path, "a rotation has begun: the next authorities are in the CA files and do not sign yet",
			"bring " + d.CAFile() + " and " + d.StoreCAFile() + " to where they are read, then weft cert rotate switch"}}
	case Switched:
		return []Finding{{Warning, CauseRotation, d.path, "a rotation is not finished: the old authorities are still trusted",
			"weft cert renew, bring the certificates to where they are read, then weft cert rotate finish"}}
	}
	return nil
}

func (d *Dir) examineAuthority(role Role) []Finding {
	certFile, keyFile := d.Files(role)
	certs, err := ReadCertificates(certFile)
	if err != nil {
		return []Finding{unreadable(certFile, err)}
	}
	_, keyErr := os.Stat(keyFile)
	if role == RoleRoot {
		_, found := examineCA(certFile)
		if keyErr == nil && d.RootKey == "" {
			found = append(found, Finding{Warning, CauseRootKey, keyFile, "the key of the root lies here; nothing needs it but 'weft cert rotate'",
				"take it to a place without a network, and name it there with --root-key"})
			found = append(found, examineKey(keyFile, certFile, certs[0])...)
		}
		return found
	}
	roots, err := d.certs(currentDir, RoleRoot)
	if err != nil {
		return nil // said already
	}
	rootFile, _ := d.files(currentDir, RoleRoot)
	s := Shown{Subject: certFile, Chain: certs, Usage: x509.ExtKeyUsageClientAuth, Roots: roots, RootsOf: rootFile}
	var found []Finding
	if err := verify(s.Chain, s.Roots, s.Usage, ""); err != nil {
		found = append(s.dates(certs[0], "it"), s.path()...)
	} else if left := time.Until(certs[0].NotAfter); left < endsSoon {
		found = []Finding{{Warning, CauseEnding, certFile, fmt.Sprintf("%s ends on %s (%s)", role, day(certs[0].NotAfter), away(left)), "weft cert rotate begin --keep-root"}}
	} else {
		found = []Finding{good(certFile, "%s is good until %s", role, day(certs[0].NotAfter))}
	}
	if keyErr == nil || role == RoleCluster {
		found = append(found, examineKey(keyFile, certFile, certs[0])...)
	}
	return found
}

func (d *Dir) examineIssued(file string) []Finding {
	chain, err := ReadCertificates(file)
	if err != nil {
		return []Finding{unreadable(file, err)}
	}
	f := Files{CA: d.CAFile(), Cert: file, Key: KeyFileOf(file), Usage: x509.ExtKeyUsageClientAuth}
	if slices.Contains(chain[0].ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		f.Usage = x509.ExtKeyUsageServerAuth
	}
	if _, err := os.Stat(f.Key); errors.Is(err, fs.ErrNotExist) {
		f.Key = "" // of a request: the key never was here
	}
	var found []Finding
	for _, one := range f.Examine() {
		if one.Subject != f.CA { // said already
			found = append(found, one)
		}
	}
	if _, current, err := d.signer(chain); err == nil && !current {
		found = append(found, Finding{Warning, CauseRotation, file, "an old authority has signed it", "weft cert renew"})
	}
	return found
}
