// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package history

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Kind says what a record is about, and with that which of its fields count.
type Kind string

const (
	// Connect: a client (By) opened a connection to To and asked who is there: Answer, Took, Error.
	Connect Kind = "connect"
	// Message: message number Message of long session Session of a client (By): Took, Error. An
	// error ends the session.
	Message Kind = "message"

	// Base: what stood in a store (Store, Lineage, Rows) at Revision, where its history begins.
	Base Kind = "base"
	// Write: a store took a change: Store, Lineage, Revision, Key, Deleted. All writes of a lineage
	// after its base are in the history.
	Write Kind = "write"
	// Followed: the writes of Store and Lineage are in the history up to Revision.
	Followed Kind = "followed"

	// Listed: a watch (By, Store, Prefix) listed Rows of Lineage at Revision.
	Listed Kind = "listed"
	// Event: a watch delivered one change: Lineage, Revision, Key, Deleted.
	Event Kind = "event"
	// Confirmed: a watch has delivered everything of Lineage up to Revision.
	Confirmed Kind = "confirmed"
	// Table: a table (By, Store, Prefix) calls itself synced with Lineage at Revision and has Rows.
	// Keys in Hold are kept although the store may lack them.
	Table Kind = "table"

	// Born and Died: the owner (By) of a row (Store, Prefix, Key) wants it from now on, or no more.
	Born Kind = "born"
	Died Kind = "died"
	// Here and Gone: a row (Store, Prefix, Key) came to a node's (By) table or map, or left it.
	Here Kind = "here"
	Gone Kind = "gone"

	// Uses and Frees: somebody (By) stands for Labels in cluster Store by identity Number, or no more.
	Uses  Kind = "uses"
	Frees Kind = "frees"

	// Fault and Healed: something (Name) was broken on purpose, or is whole again. Store is the
	// cluster whose store it concerns, empty for all. Data says that it takes packets away, so
	// that clients may fail.
	Fault  Kind = "fault"
	Healed Kind = "healed"
)

// Record is one line of a history. Which fields count is said at each Kind.
type Record struct {
	At       time.Time        `json:"at"`
	Kind     Kind             `json:"kind"`
	By       string           `json:"by,omitempty"`      // who saw or did it: a client, a node, an owner
	Store    string           `json:"store,omitempty"`   // the cluster whose store it is
	Lineage  string           `json:"lineage,omitempty"` // which life of that store: new after a wipe or a restore
	Prefix   string           `json:"prefix,omitempty"`  // of a watch; the name of a table or map
	Key      string           `json:"key,omitempty"`
	Revision int64            `json:"revision,omitempty"`
	Deleted  bool             `json:"deleted,omitempty"`
	Rows     map[string]int64 `json:"rows,omitempty"` // keys with the revision of their last put
	Hold     []string         `json:"hold,omitempty"`
	Labels   string           `json:"labels,omitempty"`
	Number   uint32           `json:"number,omitempty"`
	To       string           `json:"to,omitempty"`
	Answer   string           `json:"answer,omitempty"`
	Took     time.Duration    `json:"took,omitempty"` // nanoseconds
	Session  int              `json:"session,omitempty"`
	Message  int              `json:"message,omitempty"`
	Error    string           `json:"error,omitempty"`
	Name     string           `json:"name,omitempty"`
	Data     bool             `json:"data,omitempty"`
}

// String is the record in one line for a person: only what counts.
func (r Record) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-9s", r.At.UTC().Format("15:04:05.000000"), r.Kind)
	word := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, " %s=%s", name, value)
		}
	}
	number := func(name string, n int64) {
		if n != 0 {
			fmt.Fprintf(&b, " %s=%d", name, n)
		}
	}
	word("name", r.Name)
	word("by", r.By)
	word("store", r.Store)
	word("lineage", r.Lineage)
	word("prefix", r.Prefix)
	word("key", r.Key)
	number("revision", r.Revision)
	if r.Deleted {
		b.WriteString(" deleted")
	}
	for _, key := range slices.Sorted(maps.Keys(r.Rows)) {
		fmt.Fprintf(&b, " [%s @%d]", key, r.Rows[key])
	}
	word("hold", strings.Join(r.Hold, ","))
	word("labels", r.Labels)
	number("number", int64(r.Number))
	number("session", int64(r.Session))
	number("message", int64(r.Message))
	word("to", r.To)
	word("answer", r.Answer)
	if r.Took != 0 {
		word("took", r.Took.String())
	}
	word("error", r.Error)
	return b.String()
}
