// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weft-net/weft/kvstore"
)

func TestReadConfigFile(t *testing.T) {
	t.Parallel()
	full := `endpoints:
- https://c3.mesh.example:32379
trusted-ca-file: /ca.crt
key-file: /client.key
cert-file: /client.crt
cilium-host-aliases:
- hostname: c3.mesh.example
  ips: [192.0.2.1, "2001:db8::1"]
`
	path := filepath.Join(t.TempDir(), "c3")
	if err := os.WriteFile(path, []byte(full), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := kvstore.ReadConfigFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := kvstore.DefaultConfig()
	want.Endpoints = []string{"https://c3.mesh.example:32379"}
	want.CAFile, want.CertFile, want.KeyFile = "/ca.crt", "/client.crt", "/client.key"
	want.HostAliases = map[string][]netip.Addr{
		"c3.mesh.example": {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Fatalf("(-want +got):\n%s", d)
	}

	for _, tt := range []struct{ name, file, field, want string }{
		{"empty", " \n", "", "is empty"},
		{"not-yaml", "a: [", "", "is not YAML"},
		{"not-a-mapping", "- a", "", "not a YAML mapping"},
		{"twice", "endpoints: [http://a:1]\nendpoints: [http://b:1]", "", "is not YAML"},
		{"no-endpoints", "cert-file: /a\nkey-file: /b", "endpoints", "is missing"},
		{"null-endpoints", "endpoints: null", "endpoints", "is missing"},
		{"unknown", "endpoints: [http://a:1]\nendpoint: x", "endpoint", "remove it or correct the name"},
		{"form", "endpoints: http://a:1", "endpoints", "has the wrong form"},
		{"no-scheme", "endpoints: ['a:1']", "endpoints", "not an http or https URL"},
		{"no-port", "endpoints: [https://a]", "endpoints", "no port"},
		{"path", "endpoints: [https://a:1/b]", "endpoints", "more than scheme"},
		{"mixed", "endpoints: [https://a:1, http://a:1]", "endpoints", "cannot be mixed"},
		{"no-key", "endpoints: [https://a:1]\ncert-file: /a", "cert-file", "needs its key"},
		{"plain-with-cert", "endpoints: [http://a:1]\ntrusted-ca-file: /a", "cert-file", "write https"},
		{"skip-verify", "endpoints: [https://a:1]\ninsecure-skip-tls-verify: true", "insecure-skip-tls-verify", "is refused"},
		{"insecure", "endpoints: [https://a:1]\ninsecure-transport: true", "insecure-transport", "write http"},
		{"alias-address", "endpoints: [https://a:1]\ncilium-host-aliases: [{hostname: a, ips: [b]}]", "cilium-host-aliases", "not an IP"},
		{"alias-name", "endpoints: [https://a:1]\ncilium-host-aliases: [{ips: [10.0.0.1]}]", "cilium-host-aliases", "needs a hostname"},
		{"alias-field", "endpoints: [https://a:1]\ncilium-host-aliases: [{host: a}]", "cilium-host-aliases", "wrong form"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := kvstore.ParseConfigFile("dir/c3", []byte(tt.file))
			var e *kvstore.ConfigFileError
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want a *ConfigFileError", err)
			}
			if e.File != "dir/c3" || !strings.HasPrefix(e.Field, tt.field) || tt.field == "" && e.Field != "" ||
				!strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got field %q, %v; want field %q and %q", e.Field, err, tt.field, tt.want)
			}
		})
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "missing"), t.TempDir()} {
		if _, err := kvstore.ReadConfigFile(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Fatalf("%s: got %v, want an error that names it", path, err)
		}
	}
}

func FuzzParseConfigFile(f *testing.F) {
	f.Add([]byte("endpoints: [https://c3.mesh.example:32379]\ntrusted-ca-file: /ca.crt\n"))
	f.Add([]byte("endpoints: [http://[::1]:1]\ncilium-host-aliases: [{hostname: a, ips: [10.0.0.1]}]"))
	f.Add([]byte("- &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := kvstore.ParseConfigFile("c3", data)
		if err != nil {
			return
		}
		if err := cfg.Validate(); err != nil {
			t.Fatalf("an accepted file is not valid: %v", err)
		}
	})
}
