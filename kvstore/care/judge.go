// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package care

import (
	"fmt"
	"slices"
	"time"
)

// Problem is something that somebody must do something about.
type Problem struct {
	// Failed: the store does not do its work in full. Else it works, and somebody must look.
	Failed bool
	What   string   // one line
	Means  string   // what it means, and what still works
	Steps  []string // the way out, in order
}

// Limits of the judgement.
const (
	// NearlyFull is the part of the quota from which the size is a problem.
	NearlyFull = 0.8
	// BackupAge is from when on a backup is too old.
	BackupAge = 7 * 24 * time.Hour
	// HistoryAge is from when on nobody seems to compact: the operator keeps 10 minutes.
	HistoryAge = time.Hour
	// HeartbeatAge is twice and a half the interval at which the operator writes.
	HeartbeatAge = 150 * time.Second
	// Behind is how many entries of the log a member may be behind.
	Behind = 5000
)

// Healthy reports whether the store does its work in full.
func (s Status) Healthy() bool {
	return !slices.ContainsFunc(s.Problems, func(p Problem) bool { return p.Failed })
}

// judge fills in the problems.
func judge(s *Status) {
	s.Problems = nil
	judgeMembers(s)
	judgeAlarms(s)
	judgeSize(s)
	judgeRows(s)
	slices.SortStableFunc(s.Problems, func(a, b Problem) int {
		switch {
		case a.Failed == b.Failed:
			return 0
		case a.Failed:
			return -1
		}
		return 1
	})
}

func (s *Status) failed(what, means string, steps ...string) {
	s.Problems = append(s.Problems, Problem{true, what, means, steps})
}

func (s *Status) warn(what, means string, steps ...string) {
	s.Problems = append(s.Problems, Problem{false, what, means, steps})
}

// label is how people call a member.
func (m Member) label() string {
	if m.Name != "" {
		return m.Name
	}
	return m.Endpoint
}

func judgeMembers(s *Status) {
	answer, lead, voters := 0, false, 0
	for _, m := range s.Members {
		if !m.Learner {
			voters++
		}
		if m.Error == "" {
			answer++
			lead = lead || m.HasLeader
		}
	}
	const frozen = "packets go on, with what the nodes know; nothing new is learned, no identity is allocated"
	switch {
	case answer == 0:
		s.failed("no member answers", frozen,
			"check that etcd runs and that the network leads there", "docs/runbooks/quorum.md")
	case !lead:
		s.failed("no leader: the store has lost its quorum", frozen,
			"start the members that are away", "docs/runbooks/quorum.md")
	}
	for _, m := range s.Members {
		switch {
		case m.Error != "" && answer > 0:
			s.warn(fmt.Sprintf("member %s does not answer: %s", m.label(), m.Error),
				fmt.Sprintf("the store works as long as %d of %d members do", voters/2+1, voters), "docs/runbooks/member.md")
		case m.Lag > Behind:
			s.warn(fmt.Sprintf("member %s is %d entries behind", m.label(), m.Lag),
				"who reads from it reads old rows", "check its disk and its network")
		}
	}
}

func judgeAlarms(s *Status) {
	for _, kind := range []string{NoSpace, Corrupt} {
		if !slices.ContainsFunc(s.Alarms, func(a Alarm) bool { return a.Kind == kind }) {
			continue
		}
		if kind == Corrupt {
			s.failed("alarm CORRUPT: the members do not hold the same data",
				"no member takes a row, a deletion or a new lease; reads go on and may differ from member to member, leases that are "+
					"there are kept, and packets go on; new endpoints, identities and services wait",
				"weft store backup FILE from a member that is not named in the alarm", "remove the member at fault and let it join again empty",
				"etcdctl alarm disarm  (only then: it makes all take writes again)", "docs/runbooks/member.md")
			continue
		}
		s.failed("alarm NOSPACE: the store is full, it takes no row and no new lease",
			"reads, watches, deletions and leases that are there go on, and so do packets; new endpoints, identities and "+
				"services wait, and an agent that restarts gets no lease",
			"weft store relieve --yes  (compacts, defragments each member, disarms the alarm)",
			"weft store status  (see below which rows are many: remove their cause)",
			"raise --quota-backend-bytes of etcd if the rows in use need it", "docs/runbooks/nospace.md")
	}
}

func judgeSize(s *Status) {
	for _, m := range s.Members {
		if m.Full() < NearlyFull || slices.ContainsFunc(s.Alarms, func(a Alarm) bool { return a.Kind == NoSpace }) {
			continue
		}
		step := "raise --quota-backend-bytes of etcd, or find out which rows are many"
		if m.Fragmented() > m.Size/2 {
			step = "weft store relieve --yes  (most of the file is free pages)"
		}
		s.warn(fmt.Sprintf("member %s: %.0f %% of its quota is taken", m.label(), 100*m.Full()),
			"at 100 % the store takes no row any more (NOSPACE)", step, "docs/runbooks/nospace.md")
	}
	if !s.HistoryFrom.IsZero() && s.At.Sub(s.HistoryFrom) > HistoryAge {
		s.warn(fmt.Sprintf("not compacted for %s", s.At.Sub(s.HistoryFrom).Round(time.Minute)),
			"the store grows until its quota", "check that an operator leads: weft store status shows its heartbeat",
			"with auth, only etcd's root role may compact: give the operator an etcd-admin file, or start etcd with --auto-compaction-retention=10m")
	}
}

func judgeRows(s *Status) {
	unseen := func(what string) bool {
		return slices.ContainsFunc(s.Unseen, func(u Unseen) bool { return u.What == what })
	}
	if s.Revision == 0 {
		return // nobody answered: that is the problem
	}
	if s.Epoch.ID == "" && !unseen(epochRow) {
		s.warn("no epoch", "nodes cannot tell this store from one that replaced it", "weft store init")
	}
	switch d := s.At.Sub(s.Heartbeat); {
	case unseen(heartbeatRow):
	case s.Heartbeat.IsZero():
		s.warn("no heartbeat", "no operator leads: services are not published, nothing is compacted", "start weft operator")
	case d > HeartbeatAge:
		s.warn(fmt.Sprintf("the heartbeat is %s old", d.Round(time.Second)),
			"no operator leads, or its clock is behind this one", "check weft operator, and both clocks")
	case d < -time.Minute:
		s.warn(fmt.Sprintf("the heartbeat is %s in the future", (-d).Round(time.Second)),
			"the operator's clock is ahead of this one; readers do not mind", "check both clocks")
	}
	const means = "what is not in the nodes' memory could not be restored: service definitions above all"
	switch age := s.At.Sub(s.Backup.At); {
	case unseen(backupRow):
	case s.Backup.At.IsZero():
		s.warn("no backup is known", means, "weft store backup FILE")
	case age > BackupAge:
		s.warn(fmt.Sprintf("the last backup is %d days old", int(age.Hours()/24)), means, "weft store backup FILE")
	}
	if s.Auth != nil && !*s.Auth {
		s.warn("auth is off", "who reaches etcd with a certificate that it accepts may change everything", "weft store init --cluster NAME")
	}
}
