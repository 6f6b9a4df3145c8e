// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"strings"
)

const (
	codeWords  = 6
	consonants = "bdfghjklmnprstvz" // 4 bits each
	vowels     = "aiou"             // 2 bits each
)

// Code is six words that are the same on both sides of a join if, and only if, both mean the same two
// roots (DER): people who compare them by telephone know that nobody stands between. A word is 16 bits
// in letters that can be spoken: consonant, vowel, consonant, vowel, consonant.
func Code(rootA, rootB []byte) string {
	a, b := sha256.Sum256(rootA), sha256.Sum256(rootB)
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	h := sha256.New()
	h.Write([]byte("weft-join-code-1"))
	h.Write(a[:])
	h.Write(b[:])
	sum := h.Sum(nil)
	words := make([]string, codeWords)
	for i := range words {
		n := binary.BigEndian.Uint16(sum[2*i:])
		words[i] = string([]byte{
			consonants[n>>12], vowels[n>>10&3], consonants[n>>6&15], vowels[n>>4&3], consonants[n&15],
		})
	}
	return strings.Join(words, " ")
}
