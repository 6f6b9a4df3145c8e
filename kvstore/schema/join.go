// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"time"
)

// Prefixes of what is known of joining. Neither kind of row is leased.
const (
	// TokensPrefix holds the permissions to join, by the token's id.
	TokensPrefix = "weft/v1/tokens/"
	// PeersPrefix holds the clusters that joined, and those that left, by name.
	PeersPrefix = "weft/v1/peers/"
)

// TokenID names a token.
type TokenID [16]byte

// String returns 32 hexadecimal digits.
func (id TokenID) String() string { return hex.EncodeToString(id[:]) }

// Token is the permission for one cluster to join once. What proves it is with whoever was given the
// token, never in the store. It is comparable.
type Token struct {
	// PublicKey is the Ed25519 key that whoever uses the token signs with.
	PublicKey [32]byte
	// Joiner is the name of the cluster it is for; JoinerID its number, 0 where any will do.
	Joiner   string
	JoinerID uint32
	// Created and Expires are by the clock of whoever made it.
	Created, Expires time.Time
	// Approve: whoever uses it gets nothing before somebody has approved it.
	Approve bool
	// UsedBy is the SHA-256 of the public key that was certified with it, "" as long as none was.
	UsedBy string
	UsedAt time.Time
	Extra  Extra
}

// PeerState is how far a peer has come.
type PeerState string

// The states of a peer, in order.
const (
	// PeerWaiting: it used a token and waits for somebody's approval. It has no certificate.
	PeerWaiting PeerState = "waiting"
	// PeerPending: certificates are exchanged, or just being; its heartbeat was not seen yet.
	PeerPending PeerState = "pending"
	// PeerJoined: its heartbeat was seen.
	PeerJoined PeerState = "joined"
	// PeerLeft: its name and its certificates are refused.
	PeerLeft PeerState = "left"
)

// Peer is another cluster as it was admitted. It goes before what that cluster says later.
type Peer struct {
	State PeerState
	// Since is when it came to this state.
	Since time.Time
	// ID, MaxClusters and PodCIDRs are what it joined with.
	ID          uint32
	MaxClusters uint32
	PodCIDRs    []netip.Prefix
	// Endpoints are the URLs of its API servers.
	Endpoints []string
	// Root is the certificate (DER) that verifies its servers, and nobody else's.
	Root string
	// OneWay: the joiner reads the issuer, and nobody reads the joiner.
	OneWay bool
	// Issued are the certificates that it got from us, oldest first.
	Issued []Issued
	Extra  Extra
}

// Issued is a certificate that a peer got.
type Issued struct {
	// Serial is its number in lower case hexadecimal digits.
	Serial  string
	Expires time.Time
	// Revoked: it is refused whatever the peer's state.
	Revoked bool
}

// Equal tells whether two peers are the same.
func (p Peer) Equal(o Peer) bool {
	return p.State == o.State && p.Since.Equal(o.Since) && p.ID == o.ID && p.MaxClusters == o.MaxClusters &&
		slices.Equal(p.PodCIDRs, o.PodCIDRs) && slices.Equal(p.Endpoints, o.Endpoints) && p.Root == o.Root &&
		p.OneWay == o.OneWay && slices.Equal(p.Issued, o.Issued) && p.Extra == o.Extra
}
