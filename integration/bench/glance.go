// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/encoding"
	stock "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// reconnectBackoff is that of a client in a hurry: how long clients wait is not what is measured.
var reconnectBackoff = backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond}

// stampBytes is the length of the time at the begin of a value: nanoseconds since 1970 in decimal.
const stampBytes = 19

// valueBytes is the length of a value, about that of an ip row.
const valueBytes = 155

// watchValue is a value that says when it was written.
func watchValue(now time.Time) []byte {
	b := make([]byte, valueBytes)
	for i := range b {
		b[i] = ' '
	}
	strconv.AppendInt(b[:0], now.UnixNano(), 10)
	return b
}

// watchPrefix is where the keys of a server's clients stand. Only what weft serves is below what it
// caches, so that it costs nothing when another server is measured.
func watchPrefix(kind string) string {
	switch kind {
	case kindWeft, kindCoalesced:
		return "cilium/state/ip/v1/bench/"
	}
	return "bench/" + kind + "/"
}

// watchKey is the i-th key.
func watchKey(prefix string, i int) string {
	return fmt.Sprintf("%s10.%d.%d.%d", prefix, i>>16&255, i>>8&255, i&255)
}

// glance is what a client looks at in an answer: it is not to cost what a real client costs, who
// decodes everything.
type glance struct {
	revision int64
	canceled bool
	sent     []time.Time // of the events of a watch
	unread   bool        // the answer is only to be received
}

// glanceCodec is the library's for what is sent, and takes a glance at what comes.
type glanceCodec struct{ encoding.CodecV2 }

func newGlanceCodec() glanceCodec { return glanceCodec{encoding.GetCodecV2(stock.Name)} }

// Unmarshal reads an answer into a *glance.
func (c glanceCodec) Unmarshal(data mem.BufferSlice, to any) error {
	g, ok := to.(*glance)
	if !ok {
		return c.CodecV2.Unmarshal(data, to)
	}
	if g.unread {
		return nil
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	return fields(buf.ReadOnlyData(), func(n protowire.Number, number uint64, bytes []byte) error {
		switch n {
		case 1: // header
			return fields(bytes, func(n protowire.Number, number uint64, _ []byte) error {
				if n == 3 {
					g.revision = int64(number)
				}
				return nil
			})
		case 4:
			g.canceled = number != 0
		case 11: // event
			return fields(bytes, func(n protowire.Number, _ uint64, bytes []byte) error {
				if n != 2 { // the key and its value
					return nil
				}
				return fields(bytes, func(n protowire.Number, _ uint64, bytes []byte) error {
					if n != 5 || len(bytes) < stampBytes {
						return nil
					}
					ns, err := strconv.ParseInt(string(bytes[:stampBytes]), 10, 64)
					g.sent = append(g.sent, time.Unix(0, ns))
					return err
				})
			})
		}
		return nil
	})
}

// fields calls see for each field of a message: a number, or bytes.
func fields(b []byte, see func(n protowire.Number, number uint64, bytes []byte) error) error {
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return protowire.ParseError(size)
		}
		b = b[size:]
		var number uint64
		var bytes []byte
		switch kind {
		case protowire.VarintType:
			number, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			bytes, size = protowire.ConsumeBytes(b)
		default:
			return errors.New("a field of a kind that is not used")
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		b = b[size:]
		if err := see(n, number, bytes); err != nil {
			return err
		}
	}
	return nil
}
