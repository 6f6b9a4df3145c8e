// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// maxConfigFile is larger than any sensible client file; a mistaken path to something big must
// not fill the memory.
const maxConfigFile = 1 << 20

// ConfigFileError says which field of which etcd client file is wrong, and what to do.
type ConfigFileError struct {
	File  string // path
	Field string // "" when the file as a whole is wrong
	Err   error
}

func (e *ConfigFileError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("etcd client file %s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("etcd client file %s: %s: %v", e.File, e.Field, e.Err)
}

func (e *ConfigFileError) Unwrap() error { return e.Err }

// ReadConfigFile reads an etcd client file, the YAML that names a remote cluster:
//
//	endpoints: [https://c3.mesh.example:32379]
//	trusted-ca-file: /var/lib/weft/mesh/ca.crt
//	cert-file: /var/lib/weft/mesh/client.crt
//	key-file: /var/lib/weft/mesh/client.key
//	cilium-host-aliases: [{hostname: c3.mesh.example, ips: [10.0.0.1]}]
//
// The result has defaults filled in and is valid; the files it names are not opened. An error is
// a *ConfigFileError.
func ReadConfigFile(path string) (Config, error) {
	st, err := os.Stat(path)
	if err != nil {
		return Config{}, &ConfigFileError{path, "", err}
	}
	if st.Size() > maxConfigFile {
		return Config{}, &ConfigFileError{path, "", fmt.Errorf("has %d bytes; is this an etcd client file?", st.Size())}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, &ConfigFileError{path, "", err}
	}
	return ParseConfigFile(path, data)
}

// ParseConfigFile is ReadConfigFile for bytes that were read already; path only names them in
// errors.
func ParseConfigFile(path string, data []byte) (Config, error) {
	fail := func(field, format string, args ...any) (Config, error) {
		return Config{}, &ConfigFileError{path, field, fmt.Errorf(format, args...)}
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return fail("", "is empty; it needs at least endpoints")
	}
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return fail("", "is not YAML: %w", err)
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(asJSON, &fields); err != nil {
		return fail("", "is not a YAML mapping of fields; it needs at least endpoints")
	}

	cfg := DefaultConfig()
	var aliases []struct {
		Hostname string   `json:"hostname"`
		IPs      []string `json:"ips"`
	}
	var insecure, skipVerify bool
	known := map[string]any{
		"endpoints":                &cfg.Endpoints,
		"trusted-ca-file":          &cfg.CAFile,
		"cert-file":                &cfg.CertFile,
		"key-file":                 &cfg.KeyFile,
		"cilium-host-aliases":      &aliases,
		"insecure-transport":       &insecure,
		"insecure-skip-tls-verify": &skipVerify,
	}
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		into, ok := known[name]
		if !ok {
			return fail(name, "is not a field of an etcd client file; remove it or correct the name "+
				"(known: endpoints, trusted-ca-file, cert-file, key-file, cilium-host-aliases)")
		}
		dec := json.NewDecoder(bytes.NewReader(fields[name]))
		dec.DisallowUnknownFields()
		if err := dec.Decode(into); err != nil {
			return fail(name, "has the wrong form: %w", err)
		}
	}
	if skipVerify {
		return fail("insecure-skip-tls-verify", "is refused: a server nobody verifies could claim anything; "+
			"set trusted-ca-file instead")
	}
	if len(cfg.Endpoints) == 0 {
		return fail("endpoints", "is missing or empty; name at least one, like https://10.0.0.1:2379")
	}
	for _, a := range aliases {
		if a.Hostname == "" || len(a.IPs) == 0 {
			return fail("cilium-host-aliases", "needs a hostname and at least one of ips in each entry")
		}
		for _, s := range a.IPs {
			ip, err := netip.ParseAddr(s)
			if err != nil {
				return fail("cilium-host-aliases", "%q of %s is not an IP address", s, a.Hostname)
			}
			if cfg.HostAliases == nil {
				cfg.HostAliases = map[string][]netip.Addr{}
			}
			cfg.HostAliases[a.Hostname] = append(cfg.HostAliases[a.Hostname], ip)
		}
	}
	if err := cfg.Validate(); err != nil {
		return fail(blame(err), "%w", err)
	}
	if insecure && cfg.secure() {
		return fail("insecure-transport", "is true, but the endpoints are https: remove it or write http")
	}
	return cfg, nil
}

// blame names the field that an error of Validate is about.
func blame(err error) string {
	if strings.Contains(err.Error(), "certificate") {
		return "cert-file, key-file, trusted-ca-file"
	}
	return "endpoints"
}
