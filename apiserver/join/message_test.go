// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/apiserver/trust"
)

func TestMessage_RoundTrip(t *testing.T) {
	var b bytes.Buffer
	sent := hello{Token: "00", Facts: wireFacts{Name: "west", ID: 2, PodCIDRs: []string{"10.2.0.0/16"}}, CSR: []byte{1, 2}, OneWay: true}
	if err := send(&b, kindHello, sent); err != nil {
		t.Fatal(err)
	}
	got, err := want[hello](iotest.OneByteReader(&b), "west", kindHello)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sent, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWant_Refusal(t *testing.T) {
	var b bytes.Buffer
	if err := send(&b, kindRefusal, &Refusal{"no\x1b[31m\nway", "go"}); err != nil {
		t.Fatal(err)
	}
	_, err := want[offer](&b, "east", kindOffer)
	var r *RefusedError
	if !errors.As(err, &r) {
		t.Fatalf("got %v", err)
	}
	if diff := cmp.Diff(RefusedError{"east", &Refusal{"no [31m way", "go"}}, *r); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func frame(k byte, n uint32, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{k}, n), body...)
}

// endless counts what is read of it.
type endless struct{ read int }

func (e *endless) Read(b []byte) (int, error) {
	e.read += len(b)
	return len(b), nil
}

func TestReceive_Refused(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":      {nil, io.EOF},
		"cut-head":     {frame(1, 2, "")[:3], io.ErrUnexpectedEOF},
		"cut-body":     {frame(1, 2, "a"), io.ErrUnexpectedEOF},
		"kind-0":       {frame(0, 0, ""), errMessage},
		"kind-beyond":  {frame(8, 0, ""), errMessage},
		"too-large":    {frame(1, maxMessage+1, ""), errMessage},
		"short-proof":  {frame(2, 63, strings.Repeat("a", 63)), errMessage},
		"other-kind":   {frame(3+2, 2, "{}"), errMessage},
		"not-json":     {frame(1, 1, "{"), errMessage},
		"not-utf8":     {frame(1, 12, "{\"token\":\"\xff\""), errMessage},
		"http-request": {[]byte("GET / HTTP/1.1\r\n\r\n"), errMessage},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := want[hello](bytes.NewReader(c.b), "x", kindHello); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	t.Run("reads-no-more-than-it-takes", func(t *testing.T) {
		var rest endless
		_, _, err := receive(io.MultiReader(bytes.NewReader(frame(1, 1<<31, "")), &rest))
		if !errors.Is(err, errMessage) || rest.read > 0 {
			t.Errorf("got %v after %d bytes", err, rest.read)
		}
	})
}

func TestSend_TooLarge(t *testing.T) {
	err := send(io.Discard, kindHello, hello{CSR: make([]byte, maxMessage)})
	if err == nil || !strings.Contains(err.Error(), "pod-cidrs") {
		t.Errorf("got %v", err)
	}
}

// validFacts are those of a cluster that may join.
func validFacts(t testing.TB) Facts {
	t.Helper()
	root, err := trust.NewRoot("west", trust.RootLife)
	must(t, err)
	return Facts{
		Name: "west", ID: 2, MaxClusters: 255, Mode: "vxlan", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")},
		Endpoints: []string{"https://west.mesh.example:32379"}, Root: root.Cert,
	}
}

func TestFacts_Refused(t *testing.T) {
	if _, err := validFacts(t).wire().facts(); err != nil {
		t.Fatal(err)
	}
	valid := validFacts(t).wire()
	for name, c := range map[string]struct {
		edit func(*wireFacts)
		want string
	}{
		"name":         {func(w *wireFacts) { w.Name = "we/st" }, "cluster name"},
		"id":           {func(w *wireFacts) { w.ID = 256 }, "cluster id 256"},
		"max":          {func(w *wireFacts) { w.MaxClusters = 0 }, "mesh of 0"},
		"host-bits":    {func(w *wireFacts) { w.PodCIDRs = []string{"10.0.0.1/8"} }, "host bits"},
		"mapped":       {func(w *wireFacts) { w.PodCIDRs = []string{"::ffff:10.0.0.0/104"} }, "host bits"},
		"no-prefix":    {func(w *wireFacts) { w.PodCIDRs = []string{"\x1b]0;x"} }, "no prefix"},
		"many-cidrs":   {func(w *wireFacts) { w.PodCIDRs = make([]string, maxCIDRs+1) }, "more than"},
		"many":         {func(w *wireFacts) { w.Endpoints = make([]string, maxEndpoints+1) }, "more than"},
		"http":         {func(w *wireFacts) { w.Endpoints = []string{"http://a:1"} }, "https"},
		"path":         {func(w *wireFacts) { w.Endpoints = []string{"https://a:1/b"} }, "https"},
		"user":         {func(w *wireFacts) { w.Endpoints = []string{"https://u@a:1"} }, "https"},
		"no-port":      {func(w *wireFacts) { w.Endpoints = []string{"https://a"} }, "https"},
		"no-root":      {func(w *wireFacts) { w.Root = nil }, "root"},
		"altered-root": {func(w *wireFacts) { w.Root = append([]byte(nil), w.Root...); w.Root[len(w.Root)-1]++ }, "root"},
	} {
		t.Run(name, func(t *testing.T) {
			w := valid
			c.edit(&w)
			if _, err := w.facts(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

// FuzzHello takes any bytes for the first message: no panic, and what is accepted says the same again.
func FuzzHello(f *testing.F) {
	valid, err := json.Marshal(hello{Token: strings.Repeat("0", 32), Facts: validFacts(f).wire()})
	must(f, err)
	f.Add(frame(1, uint32(len(valid)), string(valid)))
	f.Add(frame(2, 64, strings.Repeat("a", 64)))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, body, err := receive(bytes.NewReader(b))
		if err != nil || k != kindHello {
			return
		}
		h, err := decode[hello](body)
		if err != nil {
			return
		}
		_ = h.clip()
		_, _ = parseRequest(h.CSR, "west")
		facts, err := h.Facts.facts()
		if err != nil {
			return
		}
		if again, err := facts.wire().facts(); err != nil || !again.Root.Equal(facts.Root) || again.Name != facts.Name {
			t.Fatalf("got %+v, %v, want %+v", again, err, facts)
		}
		_ = check(facts, facts, nil)
	})
}
