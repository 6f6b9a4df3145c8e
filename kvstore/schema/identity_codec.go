// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"strconv"
	"strings"
)

// Identities returns the codec of the numbers of a cluster. The value is the label string in wire
// form, for example "k8s:app=web;k8s:io.cilium.k8s.policy.cluster=c3;".
func Identities(s Scope) Codec[IdentityKey, string] {
	prefix := IdentityIDsPrefix
	if s.Cached {
		prefix = CachedIdentityPrefix + s.Cluster + "/id/"
	}
	return Codec[IdentityKey, string]{
		Prefix:    prefix,
		FormatKey: IdentityKey.String,
		ParseKey: func(tail string) (IdentityKey, error) {
			id, err := parseNumber(tail, tail)
			return IdentityKey{Cluster: s.Cluster, ID: id}, err
		},
		Encode: func(k IdentityKey, labels string) ([]byte, error) {
			if err := checkIdentity(s, k, labels); err != nil {
				return nil, err
			}
			if !strings.HasSuffix(labels, ";") || len(labels) > MaxValue {
				return nil, invalid(k.String(), "label string does not end in a semicolon or is too long")
			}
			return []byte(labels), nil
		},
		Decode: func(k IdentityKey, b []byte) (string, error) {
			if err := checkBytes(k.String(), b); err != nil {
				return "", err
			}
			return string(b), checkIdentity(s, k, string(b))
		},
		Equal: func(a, b string) bool { return a == b },
	}
}

// parseNumber reads a decimal number in its only spelling, without sign or leading zeros.
func parseNumber(key, text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || strconv.FormatUint(n, 10) != text {
		return 0, invalid(key, "%q is not a decimal number", clip(text, 32))
	}
	return uint32(n), nil
}

// ClusterLabelKey is the key of the label by which every identity names its cluster.
const ClusterLabelKey = "io.cilium.k8s.policy.cluster"

// checkIdentity holds what reader and writer demand alike: the number is the cluster's, and the
// labels say so.
func checkIdentity(s Scope, k IdentityKey, labels string) error {
	key := k.String()
	if !s.identityInRange(k.ID) {
		return invalid(key, "not in the range of cluster %d", s.ClusterID)
	}
	if err := checkText(key, "label string", labels); err != nil {
		return err
	}
	found := false
	for l := range strings.SplitSeq(labels, ";") {
		// Values may hold semicolons that nothing escapes, so a part need not be a label.
		value, ok := strings.CutPrefix(l, "k8s:"+ClusterLabelKey+"=")
		if !ok {
			continue
		}
		if value != s.Cluster {
			return invalid(key, "labels are of cluster %q, want %q", clip(value, 64), s.Cluster)
		}
		found = true
	}
	if !found {
		return invalid(key, "labels name no cluster, want k8s:%s=%s", ClusterLabelKey, s.Cluster)
	}
	return nil
}

// EncodeIdentityReference returns the value of a node's reference to a number.
func EncodeIdentityReference(id uint32) []byte { return strconv.AppendUint(nil, uint64(id), 10) }

// DecodeIdentityReference is the inverse of EncodeIdentityReference.
func DecodeIdentityReference(key string, b []byte) (uint32, error) {
	return parseNumber(key, string(b))
}
