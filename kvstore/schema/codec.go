// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

// Codec says how one kind of row stands in the store: where, under which key, with which bytes.
// It is a value; every field but Equal must be set. One codec writes a kind of row, and the same
// codec reads it, so that what weft writes it also accepts.
type Codec[K comparable, V any] struct {
	// Prefix is what every key of this kind begins with, with the trailing slash.
	Prefix string
	// FormatKey gives the key without Prefix.
	FormatKey func(K) string
	// ParseKey reads a key without Prefix. An error means that the key is not of this kind.
	ParseKey func(tail string) (K, error)
	// Encode gives the bytes of a value. The key is passed because some values repeat it.
	Encode func(K, V) ([]byte, error)
	// Decode reads the bytes of a value and checks them against the key and against what the
	// writer may say. A violation is an *InvalidError.
	Decode func(K, []byte) (V, error)
	// Equal tells whether two values mean the same. Nil where the caller brings its own.
	Equal func(a, b V) bool
}
