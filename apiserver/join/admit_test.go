// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore/schema"
)

// stranger is whoever speaks the protocol, with facts and a key of its own.
type stranger struct {
	facts Facts
	csr   []byte
}

func newStranger(t testing.TB, name string, id uint32, cidr string) stranger {
	t.Helper()
	root, err := trust.NewRoot(name, trust.RootLife)
	must(t, err)
	_, csr, err := trust.NewKeyAndCSR("remote-" + name)
	must(t, err)
	return stranger{
		Facts{Name: name, ID: id, MaxClusters: 255, Mode: "vxlan", PodCIDRs: prefixes(cidr), Root: root.Cert}, csr,
	}
}

func (s stranger) hello(t testing.TB, tok Token) []byte {
	t.Helper()
	b, err := json.Marshal(hello{Token: tok.ID.String(), Facts: s.facts.wire(), CSR: s.csr, OneWay: true})
	must(t, err)
	return b
}

// knock connects without looking who is there.
func knock(t testing.TB, c *cluster, edit func(*tls.Config)) (*tls.Conn, error) {
	t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, NextProtos: []string{proofContext}}
	if edit != nil {
		edit(cfg)
	}
	conn, err := tls.Dial("tcp", c.door, cfg)
	if err == nil {
		t.Cleanup(func() { conn.Close() })
		must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	}
	return conn, err
}

// ask says hello with a proof and returns the answer: its kind, and the reason of a refusal.
func (s stranger) ask(t testing.TB, c *cluster, tok Token) (kind, string) {
	t.Helper()
	conn, err := knock(t, c, nil)
	if err != nil {
		return 0, err.Error()
	}
	body := s.hello(t, tok)
	proof, err := prove(tok.Secret, conn.ConnectionState(), body)
	must(t, err)
	return exchange(conn, body, proof)
}

func exchange(conn *tls.Conn, body, proof []byte) (kind, string) {
	defer conn.Close()
	if err := send(conn, kindHello, body); err != nil {
		return 0, err.Error()
	}
	if err := send(conn, kindProof, proof); err != nil {
		return 0, err.Error()
	}
	k, answer, err := receive(conn)
	if err != nil {
		return 0, err.Error()
	}
	if k == kindRefusal {
		r, err := decode[Refusal](answer)
		return k, fmt.Sprint(r.Reason, err)
	}
	return k, ""
}

// TestAdmit has an issuer alone, and those who come to it.
func TestAdmit(t *testing.T) {
	t.Parallel()
	east := newCluster(t, "east", 1, "10.1.0.0/24")
	for _, c := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{{"new-token", newTokens}, {"hostile", hostile}, {"crash", crash}, {"at-once", atOnce}} {
		t.Run(c.name, func(t *testing.T) { c.run(t, east) })
	}
}

// hostile has those knock who have no token. All who get as far as a hello hear the same.
func hostile(t *testing.T, east *cluster) {
	tok := east.token(t, Order{For: "west"})
	west := newStranger(t, "west", 2, "10.2.0.0/16")
	said := map[string]string{}
	ask := func(name string, edit func(*Token)) {
		other := tok
		edit(&other)
		k, reason := west.ask(t, east, other)
		if k != kindRefusal {
			t.Errorf("%s: got message %d %s", name, k, reason)
		}
		said[name] = reason
	}
	ask("unknown-token", func(o *Token) { o.ID[3]++ })
	ask("wrong-secret", func(o *Token) { o.Secret[3]++ })

	// A proof that was made for one connection is sent on another, and one for another hello.
	first, err := knock(t, east, nil)
	must(t, err)
	second, err := knock(t, east, nil)
	must(t, err)
	body := west.hello(t, tok)
	proof, err := prove(tok.Secret, first.ConnectionState(), body)
	must(t, err)
	_, said["replayed"] = exchange(second, body, proof)
	altered := []byte(strings.Replace(string(body), `"vxlan"`, `"nodes"`, 1))
	_, said["altered"] = exchange(first, altered, proof)
	third, err := knock(t, east, nil)
	must(t, err)
	_, said["no-json"] = exchange(third, []byte("{"), proof)
	for name, reason := range said {
		if reason != said["unknown-token"] || !strings.Contains(reason, "not good here") {
			t.Errorf("%s hears %q", name, reason)
		}
	}

	for name, bytes := range map[string][]byte{
		"http":        []byte("GET / HTTP/1.1\r\nHost: east\r\n\r\n"),
		"large":       frame(1, 1<<31, "x"),
		"other-first": frame(6, 2, "{}"),
		"twice":       append(frame(1, uint32(len(body)), string(body)), frame(1, uint32(len(body)), string(body))...),
	} {
		conn, err := knock(t, east, nil)
		must(t, err)
		_, err = conn.Write(bytes)
		must(t, err)
		if k, _, err := receive(conn); err == nil {
			t.Errorf("%s: got message %d", name, k)
		}
	}
	if _, err := knock(t, east, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }); err == nil {
		t.Error("TLS 1.2 was taken")
	}
	if _, err := knock(t, east, func(c *tls.Config) { c.NextProtos = []string{"h2"} }); err == nil {
		t.Error("another protocol was taken")
	}
	if k, reason := west.ask(t, east, tok); k != kindOffer {
		t.Errorf("who has the token gets message %d %s", k, reason)
	}
}

// crash has a joiner vanish after the issuer has committed: with the same key it may come
// again, and nobody else may, with the same token.
func crash(t *testing.T, east *cluster) {
	tok := east.token(t, Order{For: "west"})
	west, thief := newStranger(t, "west", 2, "10.2.0.0/16"), newStranger(t, "west", 2, "10.9.0.0/16")
	for range 2 {
		if k, reason := west.ask(t, east, tok); k != kindOffer {
			t.Fatalf("got message %d %s", k, reason)
		}
	}
	if k, reason := thief.ask(t, east, tok); k != kindRefusal || !strings.Contains(reason, "was used at") {
		t.Errorf("another key gets message %d %s", k, reason)
	}
	p := east.wantState(t, "west", schema.PeerPending)
	good := 0 // of an earlier life of west there may be others, which are revoked
	for _, i := range p.Issued {
		if !i.Revoked {
			good++
		}
	}
	if good != 2 {
		t.Errorf("certificates %+v", p.Issued)
	}
}

// atOnce has several use one token, and two clusters of one id use one each, at the same
// moment: one is admitted.
func atOnce(t *testing.T, east *cluster) {
	for name, c := range map[string][]struct {
		who   stranger
		token Token
	}{
		"one-token": func() (out []struct {
			who   stranger
			token Token
		}) {
			tok := east.token(t, Order{For: "west"})
			for i := range 5 {
				out = append(out, struct {
					who   stranger
					token Token
				}{newStranger(t, "west", 2, fmt.Sprintf("10.2.%d.0/24", i)), tok})
			}
			return out
		}(),
		"one-id": {
			{newStranger(t, "north", 3, "10.3.0.0/24"), east.token(t, Order{For: "north"})},
			{newStranger(t, "south", 3, "10.4.0.0/24"), east.token(t, Order{For: "south"})},
		},
		"one-cidr": {
			{newStranger(t, "up", 5, "10.5.0.0/16"), east.token(t, Order{For: "up"})},
			{newStranger(t, "down", 6, "10.5.6.0/24"), east.token(t, Order{For: "down"})},
		},
	} {
		t.Run(name, func(t *testing.T) {
			kinds, reasons := make([]kind, len(c)), make([]string, len(c))
			var g errgroup.Group
			for i, x := range c {
				g.Go(func() error {
					kinds[i], reasons[i] = x.who.ask(t, east, x.token)
					return nil
				})
			}
			_ = g.Wait()
			admitted := 0
			for i, k := range kinds {
				if k == kindOffer {
					admitted++
				} else if k != kindRefusal {
					t.Errorf("got message %d %s", k, reasons[i])
				}
			}
			if admitted != 1 {
				t.Errorf("%d were admitted; others heard %q", admitted, reasons)
			}
		})
	}
}

// newTokens tries what is known before there is a joiner.
func newTokens(t *testing.T, east *cluster) {
	for name, c := range map[string]struct {
		order Order
		want  string
	}{
		"self":       {Order{For: "east", Life: time.Hour, Endpoints: []string{"a:1"}}, "is this cluster"},
		"name":       {Order{For: "We", Life: time.Hour, Endpoints: []string{"a:1"}}, "cluster name"},
		"own-id":     {Order{For: "west", ID: 1, Life: time.Hour, Endpoints: []string{"a:1"}}, "is this cluster's"},
		"id":         {Order{For: "west", ID: 256, Life: time.Hour, Endpoints: []string{"a:1"}}, "cluster id 256"},
		"long":       {Order{For: "west", Life: 25 * time.Hour, Endpoints: []string{"a:1"}}, "life 25h"},
		"short":      {Order{For: "west", Life: time.Second, Endpoints: []string{"a:1"}}, "life 1s"},
		"nowhere":    {Order{For: "west", Life: time.Hour}, "0 endpoints"},
		"no-address": {Order{For: "west", Life: time.Hour, Endpoints: []string{"east"}}, "host:port"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewToken(t.Context(), east.client, east.settings, c.order)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
	tok := east.token(t, Order{For: "west"})
	if _, err := DeleteToken(t.Context(), east.client, tok.ID.String()[:6]); err != nil {
		t.Fatal(err)
	}
	if _, err := DeleteToken(t.Context(), east.client, tok.ID.String()); !errors.Is(err, ErrNoToken) {
		t.Errorf("got %v", err)
	}
}
