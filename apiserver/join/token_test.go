// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sample() Token {
	t := Token{
		Issuer: "east", IssuerID: 1, Endpoints: []string{"east.mesh.example:32380", "[2001:db8::1]:32380"},
		Joiner: "west", JoinerID: 2, Expires: time.Date(2026, 1, 2, 16, 4, 5, 0, time.UTC),
	}
	for i := range t.Secret {
		t.Secret[i], t.Root[i] = byte(i), byte(i)*3
	}
	copy(t.ID[:], "0123456789abcdef")
	return t
}

func TestToken_RoundTrip(t *testing.T) {
	want := sample()
	text := want.Text()
	got, err := ParseToken("  " + text[:80] + "\r\n" + text[80:] + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if got.Secret != want.Secret {
		t.Error("another secret")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestToken_NeverPrintsItsSecret(t *testing.T) {
	tok := sample()
	var b bytes.Buffer
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "token", tok, "secret", tok.Secret, "pointer", &tok)
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "token", tok, "secret", tok.Secret)
	fmt.Fprintf(&b, "%v %+v %#v %s %x %d %q", tok, tok, tok, tok, tok.Secret, tok.Secret, tok.Secret)
	raw, err := json.Marshal(tok)
	if err != nil {
		t.Fatal(err)
	}
	b.Write(raw)
	secret := fmt.Sprintf("%x", [4]byte(tok.Secret[4:8]))
	for _, form := range []string{secret, "4 5 6 7", "4,5,6,7", "0x4, 0x5", "AAECAwQF", tok.Text()[30:60]} {
		if strings.Contains(b.String(), form) {
			t.Errorf("printed: %s", form)
		}
	}
}

func TestParseToken_Refused(t *testing.T) {
	text := sample().Text()
	altered := []byte(text)
	altered[40]++
	many := sample()
	many.Endpoints = make([]string, maxEndpoints+1)
	for i := range many.Endpoints {
		many.Endpoints[i] = "a:1"
	}
	broken := func(edit func(*Token)) string {
		tok := sample()
		edit(&tok)
		return tok.Text()
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty":        {" ", "is empty"},
		"other":        {"weft2." + text[6:], "newer weft"},
		"cut":          {text[:len(text)-7], "damaged"},
		"altered":      {string(altered), "damaged"},
		"long":         {text + strings.Repeat("A", 5000), "that is no token"},
		"endpoints":    {many.Text(), "endpoints"},
		"no-endpoints": {broken(func(t *Token) { t.Endpoints = nil }), "endpoints"},
		"no-port":      {broken(func(t *Token) { t.Endpoints = []string{"east"} }), "host:port"},
		"control":      {broken(func(t *Token) { t.Endpoints = []string{"ea\x1bst:1"} }), "host:port"},
		"issuer":       {broken(func(t *Token) { t.Issuer = "EAST" }), "issuer"},
		"joiner":       {broken(func(t *Token) { t.Joiner = "" }), "joiner"},
		"id":           {broken(func(t *Token) { t.IssuerID = 0 }), "cluster id 0"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseToken(c.text)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(sample().Text())
	f.Add("weft1.")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := ParseToken(text)
		if err != nil {
			return
		}
		if got := tok.Text(); got != strings.Join(strings.Fields(text), "") {
			t.Fatalf("one token, two texts: %s and %s", text, got)
		}
	})
}

func TestCode(t *testing.T) {
	got := Code([]byte("east"), []byte("west"))
	if other := Code([]byte("west"), []byte("east")); other != got {
		t.Errorf("the two sides see %q and %q", got, other)
	}
	if other := Code([]byte("east"), []byte("wess")); other == got {
		t.Errorf("another root has the same code %q", got)
	}
	words := strings.Fields(got)
	if len(words) != 6 {
		t.Errorf("got %q, want six words", got)
	}
	for _, w := range words {
		if len(w) != 5 {
			t.Errorf("word %q of %q", w, got)
		}
	}
}
