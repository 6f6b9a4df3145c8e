// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"weak"

	"github.com/weft-net/weft/apiserver/cache"
)

// sharedMessage is the message that was made last, with what it is made of. Where thousands of streams
// watch the same, all are woken by a change, and the first of them makes the message for all.
type sharedMessage struct {
	of      messageOf
	through int64 // the revision that it reaches to
	*eventMessage
}

// messageOf is what makes two messages the same bytes, if they reach to the same revision too. What was
// before an event is forgotten in time, and large messages may be divided: watches that ask for either
// share nothing.
type messageOf struct {
	generation      weak.Pointer[cache.Generation] // one that ended is not kept for its last message
	term            uint64
	first           int64 // revision
	watch           int64 // id
	from, to        string
	noPut, noDelete bool
}

// messageOf is what the next message to a watch is made of; false where it shares none.
func (ws *watchStream) messageOf(w *watch) (messageOf, bool) {
	return messageOf{
		generation: ws.ofGen, term: ws.cache.Term(), first: w.next, watch: w.id,
		from: w.from, to: w.to, noPut: w.noPut, noDelete: w.noDelete,
	}, !w.prevKV && !w.fragment
}

// made is the message to a watch that another stream made; nil where none did, or where the store has
// come further since.
func (ws *watchStream) made(w *watch, rev int64) *sharedMessage {
	m := ws.shared.Load()
	if m == nil || m.through < rev {
		return nil
	}
	if of, ok := ws.messageOf(w); !ok || of != m.of {
		return nil
	}
	return m
}
