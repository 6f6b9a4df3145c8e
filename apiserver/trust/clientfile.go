// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"context"
	"crypto/x509"
	"net/url"
	"os"
	"path/filepath"

	"github.com/weft-net/weft/kvstore"
)

// ExamineClientFile judges an etcd client file and what it names; with connect it goes to each endpoint.
func ExamineClientFile(ctx context.Context, file string, connect bool) []Finding {
	cfg, err := kvstore.ReadConfigFile(file)
	if err != nil {
		return []Finding{unreadable(file, err)}
	}
	ours := Files{CA: cfg.CAFile, Cert: cfg.CertFile, Key: cfg.KeyFile, OwnCA: true, Usage: x509.ExtKeyUsageClientAuth}
	found := ours.Examine()
	for _, endpoint := range cfg.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Scheme != "https" {
			found = append(found, Finding{Warning, CauseNoTLS, endpoint, "is not encrypted, and nobody proves who they are", "give the etcd certificates and write https"})
			continue
		}
		if connect {
			_, more := Target{Address: u.Host, Via: cfg.HostAliases[u.Hostname()], Files: ours}.Connect(ctx)
			found = append(found, more...)
		}
	}
	return found
}

// ExamineClientFiles is ExamineClientFile for all etcd client files of a directory, as agents know other
// clusters by it: files that name endpoints.
func ExamineClientFiles(ctx context.Context, dir string, connect bool) []Finding {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []Finding{unreadable(dir, err)}
	}
	var found []Finding
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		text, err := os.ReadFile(file)
		if err == nil && bytes.Contains(text, []byte("endpoints:")) {
			found = append(found, ExamineClientFile(ctx, file, connect)...)
		}
	}
	return found
}
