// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// serve answers on a port of the loopback as one who speaks HTTP/2 over TLS does.
func serve(t *testing.T, config *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop := kvstoretest.Go(t, func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { l.Close() })()
		for {
			raw, err := l.Accept()
			if err != nil {
				return ctx.Err()
			}
			if config == nil {
				_, _ = raw.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
				raw.Close()
				continue
			}
			conn := tls.Server(raw, config)
			if err := conn.HandshakeContext(ctx); err == nil {
				_, _ = io.ReadFull(conn, make([]byte, 24+9)) // the preface and a frame
				_, _ = conn.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0})
			}
			conn.Close()
		}
	})
	t.Cleanup(stop)
	return l.Addr().String()
}

// TestConnect_Verdicts goes to servers that show and want different things.
func TestConnect_Verdicts(t *testing.T) {
	d, west := newDir(t), must(Create(filepath.Join(t.TempDir(), "ca"), "west", nil))(t)
	_, user, _ := issue(t, d)
	_, stranger, _ := issue(t, west)
	a := must(d.Authority(RoleCluster))(t)
	certFile, keyFile, _, err := Issue(t.TempDir(), "server", func(pub crypto.PublicKey) (Chain, error) {
		return a.SignServer(pub, Server{Name: "east-1", Cluster: "east", Hosts: []string{"127.0.0.1"}}, ServerLife)
	})
	if err != nil {
		t.Fatal(err)
	}
	pair := must(ReadPair(certFile, keyFile))(t)
	alone := pair
	alone.Certificate = pair.Certificate[:1]
	clients := Pool(must(ReadCertificates(d.CAFile()))(t))
	mutual := &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, MinVersion: tls.VersionTLS12}
	older := mutual.Clone()
	older.MaxVersion = tls.VersionTLS12
	silent := mutual.Clone() // as an API server: it judges after the handshake, and names nobody
	silent.ClientAuth, silent.ClientCAs = tls.RequireAnyClientCert, nil
	silent.VerifyConnection = func(cs tls.ConnectionState) error {
		return verify(cs.PeerCertificates, must(ReadCertificates(d.CAFile()))(t), x509.ExtKeyUsageClientAuth, "")
	}
	files := func(ca, cert string) Files {
		f := Files{CA: ca, Cert: cert}
		if cert != "" {
			f.Key = KeyFileOf(cert)
		}
		return f
	}
	closed := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}()
	for _, tt := range []struct {
		name   string
		target Target
		text   string
		causes []Cause
	}{
		{"taken", Target{Address: serve(t, mutual), Files: files(d.CAFile(), user)}, "takes " + user, nil},
		{"taken-tls12", Target{Address: serve(t, older), Files: files(d.CAFile(), user)}, "takes " + user, nil},
		{"taken-by-alias", Target{Address: net.JoinHostPort(MeshName("east"), port(t, serve(t, silent))), Via: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Files: files(d.CAFile(), user)}, "takes " + user, nil},
		{"asks-nothing", Target{Address: serve(t, &tls.Config{Certificates: []tls.Certificate{pair}}), Files: files(d.CAFile(), user)}, "asks for no certificate of ours", nil},
		{"none-given", Target{Address: serve(t, mutual), Files: files(d.CAFile(), "")}, `none was given to try; it takes those of "weft east root"`, nil},
		{"stranger", Target{Address: serve(t, mutual), Files: files(d.CAFile(), stranger)}, "does not know who has signed " + stranger + `; it takes those of "weft east root"`, []Cause{CauseRefused}},
		{"stranger-tls12", Target{Address: serve(t, older), Files: files(d.CAFile(), stranger)}, "does not know who has signed", []Cause{CauseRefused}},
		{"stranger-at-api-server", Target{Address: serve(t, silent), Files: files(d.CAFile(), stranger)}, "without saying why", []Cause{CauseRefused}},
		{"our-ca-is-another", Target{Address: serve(t, mutual), Files: files(west.CAFile(), user)}, `holds "weft west root"`, []Cause{CauseCA}},
		{"no-ca", Target{Address: serve(t, mutual), Files: files("", user)}, "nobody said who may sign", []Cause{CauseCA}},
		{"another-name", Target{Address: serve(t, mutual), Host: MeshName("north"), Files: files(d.CAFile(), user)}, "is dialled as north.mesh.cilium.io", []Cause{CauseName}},
		{"intermediate-missing", Target{Address: serve(t, &tls.Config{Certificates: []tls.Certificate{alone}}), Files: files(d.CAFile(), user)}, "the intermediate is missing", []Cause{CauseIntermediate}},
		{"no-tls", Target{Address: serve(t, nil), Files: files(d.CAFile(), user)}, "not TLS", []Cause{CauseNoTLS}},
		{"nobody", Target{Address: closed, Files: files(d.CAFile(), user)}, "connection refused", []Cause{CauseUnreachable}},
		{"no-port", Target{Address: "127.0.0.1", Files: files(d.CAFile(), user)}, "is not host:port", []Cause{CauseUnreachable}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			shown, found := tt.target.Connect(t.Context())
			wantSaid(t, found, tt.text, tt.causes...)
			if cause := append(tt.causes, "")[0]; (len(shown) == 0) != (cause == CauseNoTLS || cause == CauseUnreachable) {
				t.Errorf("%d certificates shown", len(shown))
			}
		})
	}
}

func port(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func FuzzCommonName(f *testing.F) {
	h := newHierarchy(f, "east")
	f.Add(h.root.Cert.RawSubject)
	f.Fuzz(func(_ *testing.T, der []byte) { commonName(der) })
}
