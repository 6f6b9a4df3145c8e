// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"testing"

	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/bpf/model"
)

// TestForged_OwnAddressOfTheNode: a packet of the underlay with this node's own source address meets
// the entry of the answers that the host gives an endpoint, and must not pass for one.
func TestForged_OwnAddressOfTheNode(t *testing.T) {
	w := newWorld(t)
	cfg := small()
	g := newGame(load(t, w, cfg, nil), cfg)
	for _, family := range []uint8{4, 6} {
		for _, opener := range []string{"endpoint", "host"} {
			t.Run(fmt.Sprintf("%s-ipv%d", opener, family), func(t *testing.T) {
				s := newScript(t, g)
				question := dial(family, 9, 1, 80)
				answer := question.answered(syn | ack)
				if opener == "host" {
					question, answer = answer.with(syn), question.with(syn|ack)
					s.want(s.packet(model.ToEndpoint, 1, question, 0), "pass")
					s.want(s.endpoint(1, answer), "pass")
					answer = question
				} else {
					s.want(s.endpoint(1, question), "pass")
				}
				for range 2 {
					s.want(s.network(answer.with(ack), 0), "drop "+bpf.DropSource.String())
					s.want(s.network(answer.with(ack), remoteIdentity(3)), "drop "+bpf.DropSource.String())
					s.want(s.packet(model.ToEndpoint, 1, answer.with(ack), 0), "pass") // the real one
				}
			})
		}
	}
}
