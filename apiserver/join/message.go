// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// kind says what a message is. A message is its kind (1 byte), the length of its body (4 bytes, big
// endian) and its body: JSON, but for the proof. Members that a reader does not know are no error.
type kind byte

const (
	kindHello   kind = 1 // joiner: who it is, and what it wants a certificate for
	kindProof   kind = 2 // joiner: the signature of its hello
	kindRefusal kind = 3 // either: why not; it is the last message
	kindWaiting kind = 4 // issuer: somebody must approve
	kindOffer   kind = 5 // issuer: the joiner's certificate, who the issuer is, and what it wants a certificate for
	kindAnswer  kind = 6 // joiner: the issuer's certificate
	kindResult  kind = 7 // issuer: whether it sees the joiner's heartbeat
)

// maxMessage is the largest body: 1024 pod CIDRs, eight endpoints and a chain of certificates fit.
const maxMessage = 128 << 10

// hello is the first message.
type hello struct {
	Token  string    `json:"token"`
	Facts  wireFacts `json:"facts"`
	CSR    []byte    `json:"csr"` // DER
	OneWay bool      `json:"oneWay,omitempty"`
}

// offer is what the issuer says when the joiner is admitted.
type offer struct {
	Chain [][]byte  `json:"chain"` // DER, the joiner's certificate first
	Facts wireFacts `json:"facts"`
	CSR   []byte    `json:"csr,omitempty"` // DER; none where the issuer does not read the joiner
}

// answer is the joiner's part of the exchange.
type answer struct {
	Chain [][]byte `json:"chain,omitempty"`
}

// waiting says that somebody must approve.
type waiting struct{}

// result ends the conversation.
type result struct {
	Seen    bool   `json:"seen"`
	Problem string `json:"problem,omitempty"`
}

// Refusal is why two clusters do not become peers, and the way out.
type Refusal struct {
	Reason string `json:"reason"`
	Todo   string `json:"todo,omitempty"`
}

// Error implements error.
func (r *Refusal) Error() string { return r.Reason }

func refuse(todo, format string, args ...any) *Refusal {
	return &Refusal{Reason: fmt.Sprintf(format, args...), Todo: todo}
}

// RefusedError is a Refusal by the other side.
type RefusedError struct {
	By      string // cluster
	Refusal *Refusal
}

// Error implements error.
func (e *RefusedError) Error() string { return e.By + " refuses: " + e.Refusal.Reason }

// Unwrap returns the Refusal.
func (e *RefusedError) Unwrap() error { return e.Refusal }

// send writes a message.
func send(w io.Writer, k kind, body any) error {
	b, ok := body.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return fmt.Errorf("message %d: %w", k, err)
		}
	}
	if len(b) > maxMessage {
		return fmt.Errorf("message %d has %d bytes, more than %d: give pod-cidrs in the settings, fewer and larger", k, len(b), maxMessage)
	}
	head := binary.BigEndian.AppendUint32([]byte{byte(k)}, uint32(len(b)))
	if _, err := w.Write(append(head, b...)); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// errMessage is a message that cannot be one of this protocol.
var errMessage = errors.New("not a message of weft's join protocol")

// receive reads the next message. The other side is believed nothing: what is read before the body is
// known to be short enough is five bytes.
func receive(r io.Reader) (kind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("receive: %w", err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if k := kind(head[0]); k < kindHello || k > kindResult || n > maxMessage || k == kindProof && n != ed25519.SignatureSize {
		return 0, nil, errMessage
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, fmt.Errorf("receive: %w", err)
	}
	return kind(head[0]), body, nil
}

// decode reads the body of a message.
func decode[T any](body []byte) (T, error) {
	var v T
	if !utf8.Valid(body) {
		return v, errMessage
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return v, errMessage
	}
	return v, nil
}

// want reads the next message, which must be of a kind; a refusal is returned as an error.
func want[T any](r io.Reader, by string, k kind) (T, error) {
	var none T
	got, body, err := receive(r)
	switch {
	case err != nil:
		return none, err
	case got == k:
		return decode[T](body)
	case got == kindRefusal:
		return none, refused(by, body)
	}
	return none, errMessage
}

// refused reads a refusal. It is shown to people, so it is made harmless.
func refused(by string, body []byte) error {
	r, err := decode[Refusal](body)
	if err != nil {
		return err
	}
	return &RefusedError{by, &Refusal{clip(r.Reason, 1024), clip(r.Todo, 1024)}}
}

// clip bounds a text of the other side and leaves out what a terminal would obey.
func clip(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}
