// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"crypto/x509"
	"fmt"
	"sync"
)

// Bans are clients that are refused although their certificates are good: those of clusters that left
// the mesh. It is not written to once it was handed over.
type Bans struct {
	Users   map[string]bool // names of certificates
	Serials map[string]bool // numbers of certificates, in lower case hexadecimal digits
}

// check says why a certificate is refused, nil if it is not.
func (b Bans) check(cert *x509.Certificate) error {
	if name := cert.Subject.CommonName; b.Users[name] {
		return fmt.Errorf("%q has left the mesh", name)
	}
	if serial := fmt.Sprintf("%x", cert.SerialNumber); b.Serials[serial] {
		return fmt.Errorf("certificate %s of %q was revoked", serial, cert.Subject.CommonName)
	}
	return nil
}

// gate knows who is banned and who is connected.
type gate struct {
	mu    sync.Mutex
	bans  Bans
	links map[*link]struct{}
}

// Ban refuses clients from now on, those before it no longer, and cuts off the ones that are
// connected.
func (s *Server) Ban(b Bans) {
	g := &s.gate
	g.mu.Lock()
	g.bans = b
	var cut []*link
	for l := range g.links {
		if b.check(l.cert) != nil {
			cut = append(cut, l)
		}
	}
	g.mu.Unlock()
	for _, l := range cut {
		s.log.Info("client cut off: it has left the mesh", "user", l.cert.Subject.CommonName, "from", l.RemoteAddr().String())
		l.cut()
	}
}

// check says why a certificate is refused, nil if it is not.
func (g *gate) check(cert *x509.Certificate) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.bans.check(cert)
}

// enter notes a connection, unless its client was banned since its certificate was looked at.
func (g *gate) enter(l *link) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.bans.check(l.cert); err != nil {
		return err
	}
	if g.links == nil {
		g.links = map[*link]struct{}{}
	}
	g.links[l] = struct{}{}
	return nil
}

func (g *gate) leave(l *link) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.links, l)
}
