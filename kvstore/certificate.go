// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// shown remembers until when the server's certificate is good, as the newest connection saw it.
type shown struct{ end atomic.Pointer[time.Time] }

func (s *shown) see(chain []*x509.Certificate) {
	if len(chain) > 0 {
		end := chain[0].NotAfter
		s.end.Store(&end)
	}
}

// ServerCertificateEnd is until when the certificate is good that the server showed when the newest
// connection was made; zero: none was made, or none with TLS. A connection that has stood for long may
// have seen one that the server has renewed since.
func (c *Client) ServerCertificateEnd() time.Time {
	if end := c.shown.end.Load(); end != nil {
		return *end
	}
	return time.Time{}
}

// CertificateEnd is that of its configuration.
func (c *Client) CertificateEnd() (time.Time, error) { return c.cfg.CertificateEnd() }

// CertificateEnd is until when the client's certificate is good, as its file is now; zero where it shows
// none.
func (c Config) CertificateEnd() (time.Time, error) {
	if c.CertFile == "" {
		return time.Time{}, nil
	}
	text, err := os.ReadFile(c.CertFile)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the certificate: %w", err)
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return time.Time{}, fmt.Errorf("read the certificate: %s holds none", c.CertFile)
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes) // the first is the client's own
		if err != nil {
			return time.Time{}, fmt.Errorf("read the certificate: %s: %w", c.CertFile, err)
		}
		return cert.NotAfter, nil
	}
}
