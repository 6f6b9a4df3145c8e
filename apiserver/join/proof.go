// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
)

// proofContext separates what is signed here from everything else that is ever signed with the key.
const proofContext = "weft-join-1"

// exporterLabel names the secret of a connection that both its ends know and nobody else.
const exporterLabel = "EXPORTER-weft-join-1"

// signed is what a joiner signs: a proof is good for one hello on one connection, so it can be neither
// replayed nor passed on.
func signed(cs tls.ConnectionState, hello []byte) ([]byte, error) {
	exported, err := cs.ExportKeyingMaterial(exporterLabel, nil, 32)
	if err != nil {
		return nil, fmt.Errorf("bind to the connection: %w", err)
	}
	sum := sha256.Sum256(hello)
	return append(append([]byte(proofContext), exported...), sum[:]...), nil
}

// prove signs a hello for a connection.
func prove(s Secret, cs tls.ConnectionState, hello []byte) ([]byte, error) {
	b, err := signed(cs, hello)
	if err != nil {
		return nil, err
	}
	return ed25519.Sign(s.key(), b), nil
}

// proven tells whether the holder of the token's secret said this hello on this connection.
func proven(public [ed25519.PublicKeySize]byte, cs tls.ConnectionState, hello, proof []byte) bool {
	b, err := signed(cs, hello)
	return err == nil && len(proof) == ed25519.SignatureSize && ed25519.Verify(public[:], b, proof)
}
