// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/weft-net/weft/kvstore/schema"
)

const (
	tokenPrefix = "weft1."
	// maxTokenText is the longest text that is taken for a token: all its endpoints at their longest.
	maxTokenText = 4 << 10
	// maxEndpoints is the most places where a joiner is to look for the issuer.
	maxEndpoints = 8
	// checkBytes of a hash at the end tell a token that was copied in part.
	checkBytes = 4

	// DefaultLife and MaxLife are how long a token is good for.
	DefaultLife = time.Hour
	MaxLife     = 24 * time.Hour
)

// Secret is what a token is used with: the seed of an Ed25519 key. It never prints.
type Secret [ed25519.SeedSize]byte

// Format implements fmt.Formatter.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "secret") }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue("secret") }

// MarshalJSON implements json.Marshaler.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"secret"`), nil }

func (s Secret) key() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(s[:]) }

// Token is the permission for one cluster to join another, once. Whoever has it may use it.
type Token struct {
	ID     schema.TokenID
	Secret Secret
	// Issuer made it; Endpoints, as host:port, are where it is joined.
	Issuer    string
	IssuerID  uint32
	Endpoints []string
	// Root is the SHA-256 of the certificate (DER) of the issuer's root.
	Root [sha256.Size]byte
	// Joiner may use it. JoinerID is 0 where its number may be any.
	Joiner   string
	JoinerID uint32
	Expires  time.Time // by the issuer's clock, in whole seconds
}

// String names the token without what makes it one.
func (t Token) String() string {
	return fmt.Sprintf("token %s for cluster %s to join %s", t.ID, t.Joiner, t.Issuer)
}

// Text is the token as it is handed over. It is a secret: nobody logs it.
func (t Token) Text() string {
	b := append([]byte(nil), t.ID[:]...)
	b = append(b, t.Secret[:]...)
	b = append(b, t.Root[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Expires.Unix()))
	b = binary.BigEndian.AppendUint32(b, t.IssuerID)
	b = binary.BigEndian.AppendUint32(b, t.JoinerID)
	text := func(s string) { b = append(append(b, byte(len(s))), s...) }
	text(t.Issuer)
	text(t.Joiner)
	b = append(b, byte(len(t.Endpoints)))
	for _, e := range t.Endpoints {
		text(e)
	}
	sum := sha256.Sum256(b)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:checkBytes]...))
}

// ParseToken is the inverse of Text. Space in the text, where a terminal broke the line, is no part
// of it.
func ParseToken(text string) (Token, error) {
	t, err := parseToken(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return Token{}, fmt.Errorf("token: %w", err)
	}
	return t, nil
}

var errDamaged = errors.New("is damaged: copy all of it, as 'weft mesh token create' printed it")

func parseToken(text string) (Token, error) {
	switch {
	case text == "":
		return Token{}, errors.New("is empty")
	case len(text) > maxTokenText:
		return Token{}, fmt.Errorf("has %d characters: that is no token", len(text))
	case !strings.HasPrefix(text, tokenPrefix):
		return Token{}, fmt.Errorf("does not begin with %s: that is no token, or one of a newer weft", tokenPrefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text[len(tokenPrefix):])
	if err != nil || len(b) < checkBytes {
		return Token{}, errDamaged // the library's error would print a part of the secret
	}
	b, check := b[:len(b)-checkBytes], b[len(b)-checkBytes:]
	if sum := sha256.Sum256(b); string(sum[:checkBytes]) != string(check) {
		return Token{}, errDamaged
	}
	var t Token
	r := reader{b: b}
	copy(t.ID[:], r.take(len(t.ID)))
	copy(t.Secret[:], r.take(len(t.Secret)))
	copy(t.Root[:], r.take(len(t.Root)))
	t.Expires = time.Unix(int64(r.number(8)), 0).UTC()
	t.IssuerID, t.JoinerID = uint32(r.number(4)), uint32(r.number(4))
	t.Issuer, t.Joiner = string(r.take(int(r.number(1)))), string(r.take(int(r.number(1))))
	for range r.number(1) {
		t.Endpoints = append(t.Endpoints, string(r.take(int(r.number(1)))))
	}
	if r.short || len(r.b) > 0 {
		return Token{}, errDamaged
	}
	return t, t.validate()
}

// validate says what is wrong with a token that was read, or is to be made.
func (t Token) validate() error {
	if err := schema.CheckClusterName(t.Issuer); err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	if err := schema.CheckClusterName(t.Joiner); err != nil {
		return fmt.Errorf("joiner: %w", err)
	}
	if err := schema.CheckClusterID(t.IssuerID, 511); err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	if t.JoinerID != 0 {
		if err := schema.CheckClusterID(t.JoinerID, 511); err != nil {
			return fmt.Errorf("joiner: %w", err)
		}
	}
	if y := t.Expires.Year(); y < 2000 || y > 9998 {
		return fmt.Errorf("expires in the year %d", y)
	}
	if n := len(t.Endpoints); n == 0 || n > maxEndpoints {
		return fmt.Errorf("has %d endpoints, want 1 to %d", n, maxEndpoints)
	}
	for _, e := range t.Endpoints {
		if err := checkHostPort(e); err != nil {
			return err
		}
	}
	return nil
}

// checkHostPort says why a text is not host:port.
func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || port == "" || len(s) > 255 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("endpoint %q is not host:port, like east.mesh.example:32380", clip(s, 64))
	}
	return nil
}

// reader takes parts of a text of fixed form. What is missing is zero, and makes it short.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.short, r.b = true, nil
		return nil
	}
	part := r.b[:n]
	r.b = r.b[n:]
	return part
}

func (r *reader) number(bytes int) (n uint64) {
	for _, b := range r.take(bytes) {
		n = n<<8 | uint64(b)
	}
	return n
}
