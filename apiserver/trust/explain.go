// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Shown is a chain that one side of a connection shows, and what the other side judges it by.
type Shown struct {
	Subject string // what findings are about: a file, or a server's address
	Chain   Chain
	Usage   x509.ExtKeyUsage // ServerAuth or ClientAuth
	Host    string           // under which a server is dialled; empty: not judged

	Roots   []*x509.Certificate // whom the other side trusts
	RootsOf string              // the file that holds them
}

// Explain judges a chain as its receiver will, and says in words what is wrong with it. The verdict is
// that of the verifier that connections use: whatever it refuses has a finding that is Bad.
func Explain(s Shown) []Finding {
	if len(s.Chain) == 0 {
		return []Finding{{Bad, CauseFile, s.Subject, "shows no certificate", "name a file with --cert, or give the server one"}}
	}
	paths, err := verified(s.Chain, s.Roots, s.Usage, s.Host)
	if err == nil && !s.Chain[0].IsCA { // an authority that is shown itself would be taken, but nobody has its key
		return s.endings(paths[0])
	}
	found := slices.Concat(s.order(), s.dates(s.Chain[0], "it"), s.use(), s.host(), s.path())
	if len(found) == 0 {
		found = []Finding{{Bad, CauseOther, s.Subject, err.Error(), "make it anew with 'weft cert'"}}
	}
	return found
}

func (s Shown) bad(cause Cause, remedy, format string, args ...any) Finding {
	return Finding{Bad, cause, s.Subject, fmt.Sprintf(format, args...), remedy}
}

// endings is what there is to say of a chain that is good.
func (s Shown) endings(path []*x509.Certificate) []Finding {
	leaf, root := path[0], path[len(path)-1]
	by := fmt.Sprintf("%q", leaf.Issuer.CommonName)
	if len(path) > 2 {
		by += fmt.Sprintf(" under %q", root.Subject.CommonName)
	}
	found := []Finding{good(s.Subject, "%s %q is good until %s (%s), signed by %s",
		kindOf(leaf), leaf.Subject.CommonName, day(leaf.NotAfter), away(time.Until(leaf.NotAfter)), by)}
	if due(leaf) {
		found = append(found, Finding{Warning, CauseEnding, s.Subject,
			fmt.Sprintf("less than a third of its life is left: it ends on %s", day(leaf.NotAfter)), "weft cert renew, where it was made"})
	}
	return found
}

// order finds a file whose own certificate is not the first one.
func (s Shown) order() []Finding {
	first := s.Chain[0]
	if !first.IsCA {
		return nil
	}
	if i := slices.IndexFunc(s.Chain, func(c *x509.Certificate) bool { return !c.IsCA }); i > 0 {
		return []Finding{s.bad(CauseOrder, "put the certificate of the server or client first, then the one that signed it, and so on",
			"begins with the authority %q; what is shown, %q, is number %d", first.Subject.CommonName, s.Chain[i].Subject.CommonName, i+1)}
	}
	return []Finding{s.bad(CauseUsage, "use a certificate of 'weft cert server' or 'weft cert client'",
		"holds the authority %q and no certificate of a server or client", first.Subject.CommonName)}
}

// dates finds a certificate that is not in force. A wrong clock makes one too.
func (s Shown) dates(c *x509.Certificate, what string) []Finding {
	now := time.Now()
	clock := ""
	if s.clockSuspect(now) {
		clock = "; none of the certificates beside it is in force either, so the clock of this machine is the likelier reason"
	}
	switch {
	case now.After(c.NotAfter):
		return []Finding{s.bad(CauseExpired, "weft cert renew, where it was made; or set the clock of this machine (timedatectl)",
			"%s (%q) has expired on %s, %s ago by this machine's clock%s", what, c.Subject.CommonName, day(c.NotAfter), away(now.Sub(c.NotAfter)), clock)}
	case now.Before(c.NotBefore):
		return []Finding{s.bad(CauseNotYet, "set the clock of this machine (timedatectl), or of the one that signed",
			"%s (%q) is good from %s on, in %s by this machine's clock%s", what, c.Subject.CommonName, day(c.NotBefore), away(c.NotBefore.Sub(now)), clock)}
	}
	return nil
}

// clockSuspect reports whether all certificates that are known are out of force, on the same side.
func (s Shown) clockSuspect(now time.Time) bool {
	all := slices.Concat(s.Chain, s.Roots)
	early := !slices.ContainsFunc(all, func(c *x509.Certificate) bool { return !now.Before(c.NotBefore) })
	late := !slices.ContainsFunc(all, func(c *x509.Certificate) bool { return !now.After(c.NotAfter) })
	return len(all) > 1 && (early || late)
}

// use finds a server's certificate at a client, and the reverse.
func (s Shown) use() []Finding {
	leaf := s.Chain[0]
	if leaf.IsCA || mayBe(leaf, s.Usage) {
		return nil
	}
	return []Finding{s.bad(CauseUsage, "use one that 'weft cert "+usageName(s.Usage)+"' has made",
		"%q is for a %s and is used as that of a %s", leaf.Subject.CommonName, kindOf(leaf), usageName(s.Usage))}
}

// host finds a server that is dialled under a name that it does not have.
func (s Shown) host() []Finding {
	leaf := s.Chain[0]
	if s.Host == "" || leaf.IsCA || leaf.VerifyHostname(s.Host) == nil {
		return nil
	}
	names := hosts(leaf)
	text := fmt.Sprintf("is dialled as %s, and %q is for %s only", s.Host, leaf.Subject.CommonName, strings.Join(names, ", "))
	if len(names) == 0 {
		text = fmt.Sprintf("is dialled as %s, and %q names no host at all: its common name does not count", s.Host, leaf.Subject.CommonName)
	}
	return []Finding{s.bad(CauseName, "dial one of its names, or make it anew with 'weft cert server --host "+s.Host+"'", "%s", text)}
}

// path follows the chain from its certificate up and says where it breaks.
func (s Shown) path() (found []Finding) {
	at := s.Chain[0]
	for range maxChain {
		if root := signerAmong(at, s.Roots); root != nil {
			return append(found, s.authority(root, "the trusted authority")...)
		}
		next := signerAmong(at, s.Chain)
		if next == nil || next.Equal(at) {
			return append(found, s.broken(at))
		}
		found = append(found, s.authority(next, "the intermediate")...)
		at = next
	}
	return append(found, s.bad(CauseOrder, "make the file anew", "holds a chain of more than %d certificates", maxChain))
}

// authority judges one that the path goes through.
func (s Shown) authority(c *x509.Certificate, what string) []Finding {
	found := s.dates(c, what)
	switch {
	case !c.IsCA:
		found = append(found, s.bad(CauseUsage, "sign with an authority", "was signed by %q, which is no authority", c.Subject.CommonName))
	case !mayBe(c, s.Usage):
		found = append(found, s.bad(CauseUsage, "use one that 'weft cert "+usageName(s.Usage)+"' has made",
			"was signed by %q, which may not sign a %s", c.Subject.CommonName, usageName(s.Usage)))
	}
	return found
}

// broken says why nobody who is trusted has signed a certificate, nor anybody who is shown.
func (s Shown) broken(at *x509.Certificate) Finding {
	issuer := at.Issuer.CommonName
	trusted := "nothing is trusted"
	if len(s.Roots) > 0 {
		trusted = fmt.Sprintf("%s holds %s", s.RootsOf, describe(s.Roots))
	}
	sameName := func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, at.RawIssuer) }
	related := func(c *x509.Certificate) bool {
		return selfSigned(c) && slices.ContainsFunc(c.Subject.Organization, func(o string) bool { return slices.Contains(at.Issuer.Organization, o) })
	}
	switch {
	case selfSigned(at):
		return s.bad(CauseCA, "use the CA file of that cluster; after a rotation the new one",
			"leads to the root %q (%.8s), and %s", at.Subject.CommonName, FingerprintOf(at), trusted)
	case slices.ContainsFunc(s.Roots, sameName), slices.ContainsFunc(s.Chain, sameName):
		return s.bad(CauseCA, "use the CA file of that cluster; after a rotation the new one",
			"%q is signed by a %q with another key than the one that is known under this name: it is that of another cluster, or of before or after a rotation; %s",
			at.Subject.CommonName, issuer, trusted)
	case slices.ContainsFunc(s.Roots, related):
		return s.bad(CauseIntermediate, "append the certificate of "+quoted(issuer)+" to the certificate file, behind the first one",
			"%q is signed by %q, which is neither shown with it nor trusted: the intermediate is missing; %s", at.Subject.CommonName, issuer, trusted)
	}
	return s.bad(CauseCA, "use the CA file of that cluster; or, if "+quoted(issuer)+" is an intermediate, append its certificate to the certificate file",
		"%q is signed by %q, which is unknown here; %s", at.Subject.CommonName, issuer, trusted)
}

// signerAmong returns the certificate whose key has signed another.
func signerAmong(c *x509.Certificate, among []*x509.Certificate) *x509.Certificate {
	for _, by := range among {
		if bytes.Equal(by.RawSubject, c.RawIssuer) && by.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
			return by
		}
	}
	return nil
}

// describe lists authorities with the beginnings of their fingerprints.
func describe(certs []*x509.Certificate) string {
	var names []string
	for _, c := range certs {
		names = append(names, fmt.Sprintf("%q (%.8s)", c.Subject.CommonName, FingerprintOf(c)))
	}
	return strings.Join(names, ", ")
}

// mayBe reports whether a certificate allows a use.
func mayBe(c *x509.Certificate, usage x509.ExtKeyUsage) bool {
	return len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 || slices.Contains(c.ExtKeyUsage, usage) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
}

func usageName(u x509.ExtKeyUsage) string {
	if u == x509.ExtKeyUsageServerAuth {
		return "server"
	}
	return "client"
}

func quoted(s string) string { return fmt.Sprintf("%q", s) }
