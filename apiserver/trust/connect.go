// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// answerTime bounds each step of a connection that is tried.
const answerTime = 5 * time.Second

// Target is a server that is to be tried, and what we show it.
type Target struct {
	Address string       // host:port
	Host    string       // that its certificate must name; empty: that of Address
	Via     []netip.Addr // where the host is, asked before DNS
	Files   Files        // ours: CA verifies the server; Cert and Key are shown if it asks
}

// Connect goes to a server as far as TLS, and says what is wrong on the way: no address, no answer, its
// certificate, ours. Nothing is asked of the server. The chain is what it shows.
func (t Target) Connect(ctx context.Context) (Chain, []Finding) {
	raw, found := t.dial(ctx)
	if raw == nil {
		return nil, found
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return nil, append(found, t.unreachable(err))
	}
	var taken []string // names of authorities that the server takes clients of
	asked := false
	var shown Chain
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: t.host(), NextProtos: []string{"h2"},
		InsecureSkipVerify: true, // nothing is sent; what is shown is judged below
		VerifyConnection:   func(cs tls.ConnectionState) error { shown = cs.PeerCertificates; return nil },
		GetClientCertificate: func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked, taken = true, authorityNames(r.AcceptableCAs)
			if t.Files.Cert == "" {
				return &tls.Certificate{}, nil
			}
			pair, err := ReadPair(t.Files.Cert, t.Files.Key)
			if err != nil {
				return &tls.Certificate{}, nil // said of the files already
			}
			return &pair, nil
		},
	})
	err := conn.HandshakeContext(ctx)
	if len(shown) > 0 {
		found = append(found, t.server(shown)...)
	}
	if err == nil {
		err = knock(conn)
	}
	return shown, append(found, t.verdict(err, asked, taken))
}

// host is what the server's certificate must name.
func (t Target) host() string {
	if t.Host != "" {
		return t.Host
	}
	host, _, err := net.SplitHostPort(t.Address)
	if err != nil {
		return t.Address
	}
	return host
}

// dial makes the connection. A name is looked up first, so that it is known which step failed.
func (t Target) dial(ctx context.Context) (net.Conn, []Finding) {
	host, port, err := net.SplitHostPort(t.Address)
	if err != nil {
		return nil, []Finding{{Bad, CauseUnreachable, t.Address, "is not host:port", "write it like 192.0.2.1:32379 or [2001:db8::1]:32379"}}
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	addrs := t.Via
	if len(addrs) == 0 {
		if addrs, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host); err != nil {
			return nil, []Finding{{Bad, CauseUnreachable, t.Address, fmt.Sprintf("has no address: %v", err), "correct the name, or give its addresses in cilium-host-aliases"}}
		}
	}
	var dialer net.Dialer
	var errs []error
	for _, addr := range addrs {
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(addr.Unmap().String(), port))
		if err == nil {
			return conn, []Finding{good(t.Address, "answers at %s", conn.RemoteAddr())}
		}
		errs = append(errs, err)
	}
	return nil, []Finding{t.unreachable(errors.Join(errs...))}
}

func (t Target) unreachable(err error) Finding {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	return Finding{Bad, CauseUnreachable, t.Address, text, "look whether the server runs, and what firewalls lie between"}
}

// server judges what the server shows.
func (t Target) server(shown Chain) []Finding {
	if t.Files.CA == "" {
		s := Shown{Subject: t.Address, Chain: shown, Usage: x509.ExtKeyUsageServerAuth, Host: t.host()}
		found := append(append(s.order(), s.dates(shown[0], "its certificate")...), append(s.use(), s.host()...)...)
		return append(found, Finding{Level: Warning, Cause: CauseCA, Subject: t.Address,
			Text: "nobody said who may sign its certificate", Remedy: "name the CA file of its cluster with --ca"})
	}
	roots, err := ReadCertificates(t.Files.CA)
	if err != nil {
		return nil // said of the files already
	}
	return Explain(Shown{Subject: t.Address, Chain: shown, Usage: x509.ExtKeyUsageServerAuth, Host: t.host(), Roots: roots, RootsOf: t.Files.CA})
}

// knock says the first words of HTTP/2, which etcd and API servers speak, and waits for an answer: with
// TLS 1.3 a server tells only then what it thinks of a client's certificate.
func knock(conn *tls.Conn) error {
	settings := []byte{0, 0, 0, 4, 0, 0, 0, 0, 0} // a frame SETTINGS without any
	if _, err := conn.Write(append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), settings...)); err != nil {
		// What the server said of us before it hung up is still to be read.
		if _, said := conn.Read(make([]byte, 1)); said != nil && strings.Contains(said.Error(), "remote error") {
			return said
		}
		return err
	}
	_, err := conn.Read(make([]byte, 1))
	return err
}

// verdict says what the server thinks of us.
func (t Target) verdict(err error, asked bool, taken []string) Finding {
	ours := "our certificate"
	if t.Files.Cert != "" {
		ours = t.Files.Cert
	}
	takes := ""
	if len(taken) > 0 {
		takes = "; it takes those of " + strings.Join(taken, ", ")
	}
	refused := func(remedy, format string, args ...any) Finding {
		return Finding{Bad, CauseRefused, t.Address, fmt.Sprintf(format, args...) + takes, remedy}
	}
	var record tls.RecordHeaderError
	text := ""
	if err != nil {
		text = err.Error()
	}
	alert := strings.Contains(text, "remote error: tls:")
	switch {
	case err == nil && asked && t.Files.Cert != "":
		return good(t.Address, "takes %s", ours)
	case err == nil:
		return good(t.Address, "speaks TLS and asks for no certificate of ours")
	case errors.As(err, &record):
		return Finding{Bad, CauseNoTLS, t.Address, "speaks something that is not TLS", "correct the port; or the server has no certificate, and its URL is http"}
	case asked && t.Files.Cert == "":
		return good(t.Address, "asks its clients for a certificate, and none was given to try%s", takes)
	case alert && strings.Contains(text, "expired certificate"):
		return refused("weft cert renew; or set the clock of the server", "says that %s has expired", ours)
	case alert && strings.Contains(text, "unknown certificate authority"):
		return refused("use a certificate that the server's cluster has signed, with its intermediate behind it in the file", "says that it does not know who has signed %s", ours)
	case alert && strings.Contains(text, "certificate"):
		return refused("compare it with the server's CA file: weft cert doctor FILE --ca THAT-FILE", "refuses %s without saying why", ours)
	case alert:
		return refused("look into the log of the server", "refuses the connection: %s", text)
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return Finding{Bad, CauseUnreachable, t.Address, "answers nothing in " + answerTime.String(), "look whether the server is overloaded or stopped, and what lies between"}
	}
	return refused("look into the log of the server: it may have too many connections of this user", "hangs up: %s", text)
}

// authorityNames are the common names of those whose clients a server takes, as TLS says them.
func authorityNames(raw [][]byte) (names []string) {
	for _, der := range raw {
		if name := commonName(der); name != "" {
			names = append(names, quoted(name))
		}
	}
	return names
}

// commonName is the last common name of a distinguished name (DER), empty for what is none.
func commonName(der []byte) string {
	var sequence pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &sequence); err != nil || len(rest) > 0 {
		return ""
	}
	var name pkix.Name
	name.FillFromRDNSequence(&sequence)
	return name.CommonName
}
