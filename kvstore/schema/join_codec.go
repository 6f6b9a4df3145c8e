// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// maxPeerParts is the most endpoints, pod CIDRs or certificates that a peer has.
const maxPeerParts = 1024

type wireToken struct {
	PublicKey string    `json:"publicKey"`
	Joiner    string    `json:"joiner"`
	JoinerID  uint32    `json:"joinerID,omitempty"`
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires"`
	Approve   bool      `json:"approve,omitempty"`
	UsedBy    string    `json:"usedBy,omitempty"`
	UsedAt    time.Time `json:"usedAt,omitzero"`
}

type wirePeer struct {
	State       PeerState    `json:"state"`
	Since       time.Time    `json:"since"`
	ID          uint32       `json:"id"`
	MaxClusters uint32       `json:"maxConnectedClusters,omitempty"`
	PodCIDRs    []string     `json:"podCIDRs,omitempty"`
	Endpoints   []string     `json:"endpoints,omitempty"`
	Root        []byte       `json:"root"`
	OneWay      bool         `json:"oneWay,omitempty"`
	Issued      []wireIssued `json:"issued,omitempty"`
}

type wireIssued struct {
	Serial  string    `json:"serial"`
	Expires time.Time `json:"expires"`
	Revoked bool      `json:"revoked,omitempty"`
}

func seconds(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// checkYears refuses times that cannot be written.
func checkYears(key string, times ...time.Time) error {
	for _, t := range times {
		if y := t.UTC().Year(); y < 1 || y > 9999 {
			return invalid(key, "a time of the year %d", y)
		}
	}
	return nil
}

// Tokens returns the codec of permissions to join.
func Tokens() Codec[TokenID, Token] {
	return Codec[TokenID, Token]{
		Prefix:    TokensPrefix,
		FormatKey: TokenID.String,
		ParseKey: func(tail string) (id TokenID, err error) {
			b, err := hex.DecodeString(tail)
			if err != nil || len(b) != len(id) || hex.EncodeToString(b) != tail {
				return id, invalid(tail, "not 32 hexadecimal digits")
			}
			return TokenID(b), nil
		},
		Encode: func(id TokenID, t Token) ([]byte, error) {
			if err := checkToken(id, t); err != nil {
				return nil, err
			}
			return encodeOwn(id.String(), wireToken{
				hex.EncodeToString(t.PublicKey[:]), t.Joiner, t.JoinerID, seconds(t.Created), seconds(t.Expires),
				t.Approve, t.UsedBy, seconds(t.UsedAt),
			}, t.Extra)
		},
		Decode: func(id TokenID, b []byte) (Token, error) {
			var w wireToken
			extra, err := decodeOwn(id.String(), b, &w)
			if err != nil {
				return Token{}, err
			}
			t := Token{
				Joiner: w.Joiner, JoinerID: w.JoinerID, Created: seconds(w.Created), Expires: seconds(w.Expires),
				Approve: w.Approve, UsedBy: w.UsedBy, UsedAt: seconds(w.UsedAt), Extra: extra,
			}
			key, err := hex.DecodeString(w.PublicKey)
			if err != nil || len(key) != len(t.PublicKey) {
				return Token{}, invalid(id.String(), "public key is not 64 hexadecimal digits")
			}
			copy(t.PublicKey[:], key)
			return t, checkToken(id, t)
		},
		Equal: func(a, b Token) bool { return a == b },
	}
}

func checkToken(id TokenID, t Token) error {
	if err := CheckClusterName(t.Joiner); err != nil {
		return invalid(id.String(), "joiner: %v", err)
	}
	if t.Expires.IsZero() {
		return invalid(id.String(), "no time at which it expires")
	}
	if err := checkYears(id.String(), t.Created, t.Expires, t.UsedAt); err != nil {
		return err
	}
	if b, err := hex.DecodeString(t.UsedBy); err != nil || len(b) != 0 && len(b) != 32 {
		return invalid(id.String(), "user is not 64 hexadecimal digits")
	}
	return nil
}

// Peers returns the codec of the clusters that joined, by cluster name.
func Peers() Codec[string, Peer] {
	return Codec[string, Peer]{
		Prefix:    PeersPrefix,
		FormatKey: func(name string) string { return name },
		ParseKey: func(tail string) (string, error) {
			if err := CheckClusterName(tail); err != nil {
				return "", invalid(tail, "%v", err)
			}
			return tail, nil
		},
		Encode: encodePeer,
		Decode: decodePeer,
		Equal:  Peer.Equal,
	}
}

func encodePeer(name string, p Peer) ([]byte, error) {
	if err := checkPeer(name, p); err != nil {
		return nil, err
	}
	w := wirePeer{
		State: p.State, Since: seconds(p.Since), ID: p.ID, MaxClusters: p.MaxClusters, Endpoints: p.Endpoints,
		Root: []byte(p.Root), OneWay: p.OneWay,
	}
	for _, c := range p.PodCIDRs {
		w.PodCIDRs = append(w.PodCIDRs, c.String())
	}
	for _, i := range p.Issued {
		w.Issued = append(w.Issued, wireIssued{i.Serial, seconds(i.Expires), i.Revoked})
	}
	return encodeOwn(name, w, p.Extra)
}

func decodePeer(name string, b []byte) (Peer, error) {
	var w wirePeer
	extra, err := decodeOwn(name, b, &w)
	if err != nil {
		return Peer{}, err
	}
	p := Peer{
		State: w.State, Since: seconds(w.Since), ID: w.ID, MaxClusters: w.MaxClusters, Endpoints: w.Endpoints,
		Root: string(w.Root), OneWay: w.OneWay, Extra: extra,
	}
	for _, text := range w.PodCIDRs {
		c, err := netip.ParsePrefix(text)
		if err != nil {
			return Peer{}, invalid(name, "pod CIDR %q is no prefix", clip(text, 64))
		}
		p.PodCIDRs = append(p.PodCIDRs, c)
	}
	for _, i := range w.Issued {
		p.Issued = append(p.Issued, Issued{i.Serial, seconds(i.Expires), i.Revoked})
	}
	return p, checkPeer(name, p)
}

func checkPeer(name string, p Peer) error {
	if !slices.Contains([]PeerState{PeerWaiting, PeerPending, PeerJoined, PeerLeft}, p.State) {
		return invalid(name, "state %q is not known", clip(string(p.State), 64))
	}
	if err := CheckClusterID(p.ID, p.MaxClusters); err != nil {
		return invalid(name, "%v", err)
	}
	if len(p.PodCIDRs) > maxPeerParts || len(p.Endpoints) > maxPeerParts || len(p.Issued) > maxPeerParts {
		return invalid(name, "more than %d pod CIDRs, endpoints or certificates", maxPeerParts)
	}
	for _, c := range p.PodCIDRs {
		if !c.IsValid() || c != c.Masked() || c.Addr().Zone() != "" || c.Addr().Is4In6() {
			return invalid(name, "pod CIDR %s is no prefix without host bits", c)
		}
	}
	for _, e := range p.Endpoints {
		if err := checkText(name, "endpoint", e); err != nil {
			return err
		}
	}
	if err := checkYears(name, p.Since); err != nil {
		return err
	}
	for _, i := range p.Issued {
		if err := checkYears(name, i.Expires); err != nil {
			return err
		}
		if i.Serial == "" || len(i.Serial) > 64 || strings.Trim(i.Serial, "0123456789abcdef") != "" {
			return invalid(name, "serial %q of a certificate is not in hexadecimal digits", clip(i.Serial, 64))
		}
	}
	return nil
}
