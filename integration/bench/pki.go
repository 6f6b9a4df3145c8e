// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore"
)

// pki are the files of one authority for a server and a client, which all use.
type pki struct {
	CA         string `json:"ca"`
	ServerCert string `json:"server_cert"`
	ServerKey  string `json:"server_key"`
	ClientCert string `json:"client_cert"`
	ClientKey  string `json:"client_key"`
}

// newPKI makes an authority and its files in a directory.
func newPKI(dir string) (p pki, err error) {
	const life = 24 * time.Hour
	root, err := trust.NewRoot(scope().Cluster, life)
	if err != nil {
		return p, err
	}
	ca, err := root.NewIntermediate(scope().Cluster, trust.RoleCluster, life)
	if err != nil {
		return p, err
	}
	p.ServerCert, p.ServerKey, _, err = trust.Issue(dir, "server", func(pub crypto.PublicKey) (trust.Chain, error) {
		return ca.SignServer(pub, trust.Server{Name: "server", Hosts: []string{"127.0.0.1"}, Etcd: true}, life)
	})
	if err != nil {
		return p, err
	}
	p.ClientCert, p.ClientKey, _, err = trust.Issue(dir, "client", func(pub crypto.PublicKey) (trust.Chain, error) {
		return ca.SignUser(pub, kvstore.UserRemote, life)
	})
	if err != nil {
		return p, err
	}
	p.CA = filepath.Join(dir, "ca.crt")
	return p, trust.WriteCertificates(p.CA, []*x509.Certificate{root.Cert})
}

// server returns a gRPC server that asks for the client's certificate.
func (p pki) server(opts ...grpc.ServerOption) (*grpc.Server, error) {
	pair, err := tls.LoadX509KeyPair(p.ServerCert, p.ServerKey)
	if err != nil {
		return nil, err
	}
	roots, err := p.roots()
	if err != nil {
		return nil, err
	}
	return grpc.NewServer(append(opts, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	})))...), nil
}

// clientTLS are the settings of a connection to any of the servers.
func (p pki) clientTLS() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(p.ClientCert, p.ClientKey)
	if err != nil {
		return nil, err
	}
	roots, err := p.roots()
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

// client are the settings of a client of the etcd at a URL.
func (p pki) client(url string) kvstore.Config {
	cfg := kvstore.DefaultConfig()
	cfg.Endpoints, cfg.CAFile, cfg.CertFile, cfg.KeyFile = []string{url}, p.CA, p.ClientCert, p.ClientKey
	return cfg
}

func (p pki) roots() (*x509.CertPool, error) {
	pem, err := os.ReadFile(p.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", p.CA)
	}
	return pool, nil
}
