// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// keepTokens is how long the row of a token stays after it expired, so that 'weft mesh token list' can
// tell what became of it.
const keepTokens = 24 * time.Hour

// Order says what a token is made for.
type Order struct {
	For       string // the cluster that may join
	ID        uint32 // its number; 0: any that is free
	Life      time.Duration
	Approve   bool     // whoever uses it waits until somebody approves
	Endpoints []string // host:port, where it is joined
}

// NewToken makes a token and its row. The token is a secret that exists nowhere else.
func NewToken(ctx context.Context, c *kvstore.Client, s Settings, o Order) (Token, error) {
	t, err := newToken(ctx, c, s, o)
	if err != nil {
		return Token{}, fmt.Errorf("token for %s: %w", o.For, err)
	}
	return t, nil
}

func newToken(ctx context.Context, c *kvstore.Client, s Settings, o Order) (Token, error) {
	if err := s.Validate(); err != nil {
		return Token{}, err
	}
	if o.Life < time.Minute || o.Life > MaxLife {
		return Token{}, fmt.Errorf("life %v: use 1m to %v", o.Life, MaxLife)
	}
	k, err := learn(ctx, c, s)
	if err != nil {
		return Token{}, err
	}
	if r := k.admits(o.For, o.ID); r != nil {
		return Token{}, r
	}
	if err := s.tryPeerCA(o.For, k.facts.Root); err != nil {
		return Token{}, err
	}
	now := time.Now()
	t := Token{
		Issuer: k.facts.Name, IssuerID: k.facts.ID, Endpoints: o.Endpoints, Root: trust.FingerprintOf(k.facts.Root),
		Joiner: o.For, JoinerID: o.ID, Expires: now.Add(o.Life).UTC().Truncate(time.Second),
	}
	rand.Read(t.ID[:])
	rand.Read(t.Secret[:])
	if err := t.validate(); err != nil {
		return Token{}, err
	}
	row := schema.Token{Joiner: o.For, JoinerID: o.ID, Created: now, Expires: t.Expires, Approve: o.Approve}
	copy(row.PublicKey[:], t.Secret.key().Public().(ed25519.PublicKey))
	codec := schema.Tokens()
	op, err := put(codec, t.ID, row)
	if err != nil {
		return Token{}, err
	}
	old, err := forgotten(ctx, c, now)
	if err != nil {
		return Token{}, err
	}
	return t, commit(ctx, c, "store", []clientv3.Cmp{unchanged(codec, t.ID, 0)}, append(old, op)...)
}

// admits says why a cluster of that name and number (0: any) cannot join, as far as that is known
// before it says more.
func (k knowledge) admits(name string, id uint32) *Refusal {
	if err := schema.CheckClusterName(name); err != nil {
		return refuse("", "%v", err)
	}
	if id != 0 {
		if err := schema.CheckClusterID(id, k.facts.MaxClusters); err != nil {
			return refuse("", "%v", err)
		}
	}
	if name == k.facts.Name {
		return refuse("name the cluster that is to join with --for", "%s is this cluster", name)
	}
	if id == k.facts.ID {
		return refuse("", "cluster id %d is this cluster's", id)
	}
	if k.peers[name].State == schema.PeerJoined {
		return refuse("weft mesh leave "+name+" (ends the old peering first)", "cluster %s has joined already", name)
	}
	for _, o := range k.others {
		if id != 0 && o.Name != name && o.ID == id {
			return refuse("", "cluster id %d is that of cluster %s", id, o.Name)
		}
	}
	return nil
}

// forgotten are the operations that remove rows of tokens that expired long ago.
func forgotten(ctx context.Context, c *kvstore.Client, now time.Time) ([]clientv3.Op, error) {
	tokens, err := Tokens(ctx, c)
	if err != nil {
		return nil, err
	}
	var ops []clientv3.Op
	for id, t := range tokens {
		if now.Sub(t.Expires) > keepTokens && len(ops) < 100 {
			ops = append(ops, clientv3.OpDelete(schema.TokensPrefix+id.String()))
		}
	}
	return ops, nil
}

// Tokens reads the rows of all tokens. One that cannot be read is left out: nobody can use it.
func Tokens(ctx context.Context, c *kvstore.Client) (map[schema.TokenID]schema.Token, error) {
	return list(ctx, c, schema.Tokens())
}

func list[K comparable, V any](ctx context.Context, c *kvstore.Client, codec schema.Codec[K, V]) (map[K]V, error) {
	l, err := c.List(ctx, codec.Prefix, kvstore.ListOptions{})
	if err != nil {
		return nil, err
	}
	rows := map[K]V{}
	for _, kv := range l.KVs {
		key, err := codec.ParseKey(kv.Key[len(codec.Prefix):])
		if err != nil {
			continue
		}
		if v, err := codec.Decode(key, kv.Value); err == nil {
			rows[key] = v
		}
	}
	return rows, nil
}

// ErrNoToken means that no token has that id.
var ErrNoToken = errors.New("no such token; see 'weft mesh token list'")

// DeleteToken takes a token back, by as many digits of its id as make it clear which.
func DeleteToken(ctx context.Context, c *kvstore.Client, id string) (schema.TokenID, error) {
	tokens, err := Tokens(ctx, c)
	if err != nil {
		return schema.TokenID{}, err
	}
	var found []schema.TokenID
	for have := range tokens {
		if text := have.String(); len(id) > 0 && len(id) <= len(text) && text[:len(id)] == id {
			found = append(found, have)
		}
	}
	switch len(found) {
	case 0:
		return schema.TokenID{}, fmt.Errorf("token %s: %w", clip(id, 32), ErrNoToken)
	case 1:
		_, err := c.Delete(ctx, schema.TokensPrefix+found[0].String())
		return found[0], err
	}
	return schema.TokenID{}, fmt.Errorf("token %s: %d tokens begin so; give more of it", clip(id, 32), len(found))
}

// state tells in a word what a token is good for.
func tokenState(t schema.Token, now time.Time) string {
	switch {
	case t.UsedBy != "":
		return "used"
	case now.After(t.Expires):
		return "expired"
	}
	return "open"
}

// TokenState tells in a word what a token is good for: open, used or expired.
func TokenState(t schema.Token) string { return tokenState(t, time.Now()) }
