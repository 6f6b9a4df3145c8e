// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"time"
)

// Config says how to reach one etcd. Endpoints is required; everything else has a default.
type Config struct {
	// Endpoints are client URLs of the members, all https or all http.
	Endpoints []string
	// CAFile holds the certificates that may sign the server's. Default: the system's.
	CAFile string
	// CertFile and KeyFile are what the client shows. Both or none. The files are read again at
	// every handshake, so a rotated certificate is used from the next connection on.
	CertFile, KeyFile string
	// HostAliases are addresses of host names, asked before DNS.
	HostAliases map[string][]netip.Addr
	// Sticky stays with one endpoint until its connection ends, instead of asking all of them in turn.
	// The API servers of a cluster need it: for some time after a loss of their store they show it at
	// different times, and who goes from one to the other and back sees rows come and go.
	Sticky bool
	// DialTimeout bounds one attempt to connect. Default 5 s.
	DialTimeout time.Duration
	// RequestTimeout bounds one request, or one page of a list. Default 15 s.
	RequestTimeout time.Duration
	// KeepAlive is the interval of pings on a connection with requests, KeepAliveTimeout how long
	// an answer may take before the connection is given up. Defaults 15 s and 25 s.
	KeepAlive, KeepAliveTimeout time.Duration
	// QPS limits requests (a list is one) per second, Burst how many may go at once.
	// Zero: no limit; Burst defaults to QPS.
	QPS   float64
	Burst int
	// MaxMessageBytes is the largest answer that is accepted. A list whose page is larger asks
	// for smaller pages. Default 64 MiB.
	MaxMessageBytes int
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		DialTimeout:      5 * time.Second,
		RequestTimeout:   15 * time.Second,
		KeepAlive:        15 * time.Second,
		KeepAliveTimeout: 25 * time.Second,
		MaxMessageBytes:  64 << 20,
	}
}

// withDefaults fills every zero field.
func (c Config) withDefaults() Config {
	d := DefaultConfig()
	if c.DialTimeout == 0 {
		c.DialTimeout = d.DialTimeout
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = d.RequestTimeout
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = d.KeepAlive
	}
	if c.KeepAliveTimeout == 0 {
		c.KeepAliveTimeout = d.KeepAliveTimeout
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = d.MaxMessageBytes
	}
	if c.QPS > 0 && c.Burst == 0 {
		c.Burst = max(1, int(c.QPS))
	}
	return c
}

// Validate checks the settings without touching the files they name.
func (c Config) Validate() error {
	if len(c.Endpoints) == 0 {
		return errors.New("no endpoints: name at least one, like https://10.0.0.1:2379")
	}
	scheme := ""
	for _, ep := range c.Endpoints {
		u, err := url.Parse(ep)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("endpoint %q is not an http or https URL with a host, like https://10.0.0.1:2379", ep)
		}
		if u.Port() == "" {
			return fmt.Errorf("endpoint %q has no port; etcd's is 2379", ep)
		}
		if (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.User != nil {
			return fmt.Errorf("endpoint %q is more than scheme, host and port", ep)
		}
		if scheme != "" && u.Scheme != scheme {
			return fmt.Errorf("endpoint %q: http and https cannot be mixed", ep)
		}
		scheme = u.Scheme
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("a certificate needs its key: set both files or none")
	}
	if scheme == "http" && (c.CAFile != "" || c.CertFile != "") {
		return errors.New("certificates are set, but the endpoints are http: write https")
	}
	for name, d := range map[string]time.Duration{
		"dial timeout": c.DialTimeout, "request timeout": c.RequestTimeout,
		"keep-alive": c.KeepAlive, "keep-alive timeout": c.KeepAliveTimeout,
	} {
		if d < 0 {
			return fmt.Errorf("%s is negative", name)
		}
	}
	if c.QPS < 0 || c.Burst < 0 {
		return errors.New("the request limit is negative; 0 means no limit")
	}
	if c.MaxMessageBytes != 0 && c.MaxMessageBytes < 2<<20 {
		return errors.New("the largest message must be at least 2 MiB, more than one value can have")
	}
	return nil
}

// secure reports whether the endpoints are https. The settings must be valid.
func (c Config) secure() bool {
	u, err := url.Parse(c.Endpoints[0])
	return err == nil && u.Scheme == "https"
}
