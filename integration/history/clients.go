// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package history

import (
	"fmt"
	"time"
)

// checkClients judges what clients saw: while no fault takes packets away no connect fails, and a
// session answers every message in turn.
func checkClients(records []Record, _ Limits) []finding {
	type session struct {
		by     string
		number int
	}
	cuts := cutsOf(records)
	last := map[session]int{}
	var found []finding
	for at, r := range records {
		if r.Kind != Connect && r.Kind != Message {
			continue
		}
		blame := func(what string) {
			found = append(found, finding{ErrBrokeInvisible, what, "", at, func(x Record) bool {
				return x.Kind == r.Kind && x.By == r.By && x.Session == r.Session
			}})
		}
		when := r.At.UTC().Format("15:04:05.000000")
		if r.Kind == Connect {
			if r.Error != "" && !cuts.excuse(r) {
				blame(fmt.Sprintf("%s could not connect to %s at %s: %s", r.By, r.To, when, r.Error))
			}
			continue
		}
		s := session{r.By, r.Session}
		before, known := last[s]
		last[s] = r.Message
		switch {
		case cuts.excuse(r):
		case r.Error != "":
			blame(fmt.Sprintf("session %d of %s ended at %s: %s", r.Session, r.By, when, r.Error))
		case known && r.Message != before+1:
			blame(fmt.Sprintf("session %d of %s answered message %d after %d", r.Session, r.By, r.Message, before))
		}
	}
	return found
}

// cuts are the times in which packets may be lost.
type cuts []struct{ from, to time.Time }

func cutsOf(records []Record) cuts {
	var all cuts
	began := map[string]int{}
	for _, r := range records {
		switch {
		case r.Kind == Fault && r.Data:
			began[r.Name] = len(all)
			all = append(all, struct{ from, to time.Time }{r.At, time.Unix(1<<40, 0)})
		case r.Kind == Healed:
			if i, is := began[r.Name]; is {
				all[i].to = r.At
				delete(began, r.Name)
			}
		}
	}
	return all
}

// excuse says whether a record's time touches a cut.
func (c cuts) excuse(r Record) bool {
	for _, cut := range c {
		if !r.At.After(cut.to) && !r.At.Add(r.Took).Before(cut.from) {
			return true
		}
	}
	return false
}
