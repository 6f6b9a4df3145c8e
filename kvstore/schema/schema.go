// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package schema holds what stands in the store: the keys, the values and the one codec that reads
// and writes each of them. The open part of it (prefix "cilium/") is the schema of Cilium 1.20, byte
// for byte; what weft adds stands under "weft/v1/".
//
// It is pure: no I/O, no goroutines, no clock. A value that it returns is parsed (addresses are
// netip types) and immutable: whoever holds one must not write to its maps and slices.
//
// It is not the place for what rows mean together (packages service, policy, clustermesh), nor for
// the client of the store (package kvstore). Everything above kvstore may import it.
package schema

import (
	"fmt"
	"unicode/utf8"
)

// MaxValue is the largest value, in bytes, that a codec reads or writes. etcd itself ends at 1.5 MiB
// for a request; a row is far smaller, and one that is not is a mistake or an attack.
const MaxValue = 512 << 10

// Scope says whose rows a codec reads or writes, and thereby what they must say about themselves.
type Scope struct {
	// Cluster is the name of the cluster the rows belong to.
	Cluster string
	// ClusterID is its number, 1 to MaxClusters.
	ClusterID uint32
	// MaxClusters is 255 or 511, equal in the whole mesh; zero means 255.
	MaxClusters uint32
	// Cached selects the layout of a mirror (cilium/cache/...), in which many clusters share one
	// store, instead of that of a cluster's own store (cilium/state/...).
	Cached bool
}

// InvalidError says why a key or a value was refused. The previous value of the key stays in force.
type InvalidError struct {
	// Key is the key without its prefix, as far as it is known.
	Key string
	// Reason is a short sentence; it may quote the offending part of the value.
	Reason string
}

// Error implements error.
func (e *InvalidError) Error() string { return fmt.Sprintf("invalid row %q: %s", e.Key, e.Reason) }

func invalid(key, format string, args ...any) *InvalidError {
	return &InvalidError{Key: clip(key, 256), Reason: clip(fmt.Sprintf(format, args...), 256)}
}

// clip bounds what a hostile value can put into logs and status, and keeps it valid UTF-8.
func clip(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + "..."
	}
	return s
}
