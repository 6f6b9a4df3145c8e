// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// Server is what a server's certificate says.
type Server struct {
	Name  string   // common name; not that of a user
	Hosts []string // DNS names, "*.example" among them, and addresses under which it is dialled
	// Cluster is the cluster whose API server it is: its name in the mesh is added. Empty for others.
	Cluster string
	// Etcd is a member of an etcd: it is a client of the other members too.
	Etcd bool
}

// MeshName is the DNS name under which the other clusters know a cluster's API servers; it need not
// be in the DNS. The domain is Cilium's, whose peers expect it.
func MeshName(cluster string) string { return cluster + ".mesh.cilium.io" }

// SignServer signs a server's certificate. The peer CA signs none.
func (a *Authority) SignServer(pub crypto.PublicKey, s Server, life time.Duration) (Chain, error) {
	chain, err := a.signServer(pub, s, life)
	if err != nil {
		return nil, fmt.Errorf("certificate of server %q: %w", s.Name, err)
	}
	return chain, nil
}

func (a *Authority) signServer(pub crypto.PublicKey, s Server, life time.Duration) (Chain, error) {
	if a.Role == RolePeer {
		return nil, fmt.Errorf("%q signs the readers of other clusters only", a.Cert.Subject.CommonName)
	}
	switch {
	case s.Name == "":
		return nil, errors.New("it has no name")
	case isUser(s.Name):
		return nil, errors.New("the name is that of a user of the store: a server that shows it to an etcd would be that user")
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: s.Name},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if s.Etcd {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if s.Cluster != "" {
		if err := schema.CheckClusterName(s.Cluster); err != nil {
			return nil, err
		}
		template.DNSNames = append(template.DNSNames, MeshName(s.Cluster))
	}
	for _, host := range s.Hosts {
		if addr, err := netip.ParseAddr(host); err == nil {
			template.IPAddresses = append(template.IPAddresses, addr.WithZone("").AsSlice())
			continue
		}
		if !hostname(host) {
			return nil, fmt.Errorf("%q is neither an address nor a DNS name; write it without scheme and port", host)
		}
		template.DNSNames = append(template.DNSNames, strings.ToLower(host))
	}
	if len(template.DNSNames)+len(template.IPAddresses) == 0 {
		return nil, errors.New("it names no host: give the DNS names and addresses under which clients dial it")
	}
	return a.issue(template, pub, life)
}

// SignUser signs the certificate of a client that is a user of that name. The peer CA signs "remote"
// and "remote-<cluster>" only, and those for 90 days at least; the root signs none.
func (a *Authority) SignUser(pub crypto.PublicKey, user string, life time.Duration) (Chain, error) {
	chain, err := a.signUser(pub, user, life)
	if err != nil {
		return nil, fmt.Errorf("certificate of user %q: %w", user, err)
	}
	return chain, nil
}

func (a *Authority) signUser(pub crypto.PublicKey, user string, life time.Duration) (Chain, error) {
	if !isUser(user) {
		return nil, errors.New("no such user: it is root, admin-CLUSTER, operator-CLUSTER, apiserver-CLUSTER, local-CLUSTER, node-NODE, remote or remote-CLUSTER")
	}
	switch a.Role {
	case RoleRoot:
		return nil, fmt.Errorf("the root %q signs authorities, not users", a.Cert.Subject.CommonName)
	case RolePeer:
		if !isPeer(user) {
			return nil, fmt.Errorf("%q signs the readers of other clusters only", a.Cert.Subject.CommonName)
		}
		if life < MinPeerLife {
			return nil, fmt.Errorf("a peer's certificate lives %d days at least", int(MinPeerLife.Hours()/24))
		}
		if left := time.Until(a.Cert.NotAfter); left < MinPeerLife {
			return nil, fmt.Errorf("%q itself ends on %s, before %d days are over; make a new one with 'weft cert rotate'",
				a.Cert.Subject.CommonName, day(a.Cert.NotAfter), int(MinPeerLife.Hours()/24))
		}
	}
	return a.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: user},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, pub, life)
}

// isUser reports whether a common name is that of a user whom some store knows.
func isUser(name string) bool {
	if name == kvstore.UserRoot || name == "admin" || name == "local" || isPeer(name) {
		return true
	}
	for _, kind := range []string{"admin-", "operator-", "apiserver-", "local-"} {
		if cluster, ok := strings.CutPrefix(name, kind); ok {
			return schema.CheckClusterName(cluster) == nil
		}
	}
	node, ok := strings.CutPrefix(name, "node-")
	return ok && hostname(node) && len(name) <= 64 // of a common name (RFC 5280, ub-common-name)
}

// isPeer reports whether a common name is that of a reader from another cluster.
func isPeer(name string) bool {
	if name == kvstore.UserRemote {
		return true
	}
	cluster, ok := strings.CutPrefix(name, kvstore.UserRemote+"-")
	return ok && schema.CheckClusterName(cluster) == nil
}

// hostname reports whether a text can be a DNS name in a certificate.
func hostname(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	for i, label := range strings.Split(s, ".") {
		if label == "*" && i == 0 && strings.Contains(s, ".") {
			continue
		}
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return false
			}
		}
	}
	return true
}
