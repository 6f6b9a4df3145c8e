// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package care

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// Status is what one look at a store found. What could not be read is named in Unseen, and its
// field is zero.
type Status struct {
	At      time.Time
	Members []Member
	Alarms  []Alarm
	// Revision is the newest one that the store answered with.
	Revision int64
	// Compacted is the oldest revision that can still be read; 0 if nothing was ever compacted.
	Compacted int64
	// HistoryFrom is when Compacted was the newest, as exactly as the heartbeat tells (a minute).
	// Zero: unknown, or nothing was compacted.
	HistoryFrom time.Time
	// Heartbeat is what the heartbeat says, by the clock of the operator that wrote it. Zero: none.
	Heartbeat time.Time
	Epoch     schema.Epoch  // zero: none
	Backup    schema.Backup // zero: none
	Leases    int           // -1: not seen
	Auth      *bool         // nil: not seen
	Prefixes  []Prefix
	Unseen    []Unseen
	Problems  []Problem // worst first
}

// Member is one member of the etcd cluster.
type Member struct {
	ID         uint64
	Name       string // empty if the list of members could not be read
	Endpoint   string // where it was asked
	Error      string // why it did not answer; then the rest is zero
	Version    string
	Leader     bool
	Learner    bool
	HasLeader  bool   // it knows of one
	Lag        uint64 // entries of the log that it has not applied yet, against the furthest member
	Size       int64  // bytes of the database file
	InUse      int64  // bytes of it that are not free pages
	Quota      int64  // bytes; 0: this version of etcd (before 3.6) does not say
	Complaints []string

	applied, index uint64
}

// Fragmented is the part of the file that a defragmentation would give back, in bytes.
func (m Member) Fragmented() int64 { return max(0, m.Size-m.InUse) }

// Full is the size as a part of the quota, 0 if the quota is unknown.
func (m Member) Full() float64 {
	if m.Quota <= 0 {
		return 0
	}
	return float64(m.Size) / float64(m.Quota)
}

// Alarm is an alarm that a member raised: NOSPACE or CORRUPT.
type Alarm struct {
	Kind   string
	Member uint64
}

// The alarms of etcd.
const (
	NoSpace = "NOSPACE"
	Corrupt = "CORRUPT"
)

// Prefix counts the keys of one kind.
type Prefix struct {
	Prefix string
	Keys   int64
	Bytes  int64 // of keys and values; -1 if it was not asked for
}

// Unseen names something that could not be read, and why.
type Unseen struct{ What, Why string }

// Options say how much Read reads.
type Options struct {
	// Bytes reads every value to count bytes, a page at a time. Else keys are only counted.
	Bytes bool
}

// Read asks every member and reads what the client's certificate may. It fails only if ctx ends; a
// store that does not answer is a Status with problems.
func Read(ctx context.Context, c *kvstore.Client, opts Options) (Status, error) {
	r := &reader{c: c, s: Status{At: time.Now(), Leases: -1}, opts: opts}
	r.members(ctx)
	// Without a member that answers, each further question would only wait for its timeout.
	if slices.ContainsFunc(r.s.Members, func(m Member) bool { return m.Error == "" }) {
		r.alarms(ctx)
		r.auth(ctx)
		r.leases(ctx)
		r.rows(ctx)
		r.history(ctx)
		r.prefixes(ctx)
	}
	if err := ctx.Err(); err != nil {
		return r.s, fmt.Errorf("look at the store: %w", err)
	}
	judge(&r.s)
	return r.s, nil
}

// reader is one Read.
type reader struct {
	c    *kvstore.Client
	s    Status
	opts Options
}

// ask runs one question; a failure is noted as something unseen.
func (r *reader) ask(ctx context.Context, what string, question func(context.Context) error) bool {
	err := r.c.Do(ctx, what, question)
	if err == nil {
		return true
	}
	r.s.Unseen = append(r.s.Unseen, Unseen{what, why(err)})
	return false
}

// why is the reason without the path that led to it.
func why(err error) string {
	var at *kvstore.EndpointError
	switch {
	case errors.As(err, &at) && at.Reason == kvstore.ReasonUnauthorised:
		return "this certificate's name may not see it; use the one of admin or root"
	case errors.As(err, &at):
		return fmt.Sprintf("%s: %s", at.Endpoint, at.Reason)
	case errors.Is(err, rpctypes.ErrNoLeader):
		return "the store has no leader"
	}
	return err.Error()
}

func (r *reader) members(ctx context.Context) {
	// Serializable: a store that has lost its quorum answers too.
	var listed []Member
	urls := map[uint64][]string{}
	r.ask(ctx, "list of members", func(ctx context.Context) error {
		resp, err := r.c.Etcd().MemberList(ctx, clientv3.WithSerializable())
		if err != nil {
			return err
		}
		for _, m := range resp.Members {
			listed = append(listed, Member{ID: m.ID, Name: m.Name, Learner: m.IsLearner})
			urls[m.ID] = m.ClientURLs
		}
		return nil
	})
	seen := map[uint64]Member{}
	var silent []Member
	for _, ep := range r.c.Endpoints() {
		if m, err := r.member(ctx, ep); err != nil {
			silent = append(silent, Member{Endpoint: ep, Error: why(err)})
		} else if _, known := seen[m.ID]; !known {
			seen[m.ID] = m
		}
	}
	for _, l := range listed {
		m, ok := seen[l.ID]
		for i := 0; !ok && i < len(urls[l.ID]); i++ {
			ep := strings.TrimSuffix(urls[l.ID][i], "/")
			if j := slices.IndexFunc(silent, func(s Member) bool { return s.Endpoint == ep }); j >= 0 {
				m = silent[j]
				silent = slices.Delete(silent, j, j+1)
				continue
			}
			var err error
			if m, err = r.member(ctx, ep); err != nil {
				m = Member{Endpoint: ep, Error: why(err)}
				continue
			}
			ok = true
		}
		if !ok && m.Error == "" {
			m.Error = "it has never started"
		}
		m.ID, m.Name, m.Learner = l.ID, l.Name, l.Learner
		r.s.Members = append(r.s.Members, m)
		delete(seen, l.ID)
	}
	for _, m := range seen {
		r.s.Members = append(r.s.Members, m)
	}
	// With a list, a configured endpoint that belongs to nobody on it may be a proxy or a wrong
	// address; without one it is all that is known.
	r.s.Members = append(r.s.Members, silent...)
	var furthest uint64
	for _, m := range r.s.Members {
		furthest = max(furthest, m.index)
	}
	for i, m := range r.s.Members {
		if m.Error == "" {
			r.s.Members[i].Lag = furthest - min(furthest, m.applied)
		}
	}
	slices.SortStableFunc(r.s.Members, func(a, b Member) int {
		return strings.Compare(a.Name+" "+a.Endpoint, b.Name+" "+b.Endpoint)
	})
}

// memberTime is how long one member may take to say how it is: it asks nobody else for that.
const memberTime = 3 * time.Second

// member asks one member.
func (r *reader) member(ctx context.Context, endpoint string) (Member, error) {
	var m Member
	err := r.c.Do(ctx, "status of "+endpoint, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, memberTime)
		defer cancel()
		s, err := r.c.Etcd().Status(ctx, endpoint)
		if err != nil {
			return err
		}
		m = Member{
			ID: s.Header.MemberId, Endpoint: endpoint, Version: s.Version, Learner: s.IsLearner,
			Leader: s.Leader == s.Header.MemberId, HasLeader: s.Leader != 0,
			Size: s.DbSize, InUse: s.DbSizeInUse, Quota: s.DbSizeQuota,
			Complaints: s.Errors, applied: s.RaftAppliedIndex, index: s.RaftIndex,
		}
		r.s.Revision = max(r.s.Revision, s.Header.Revision)
		return nil
	})
	return m, err
}

func (r *reader) alarms(ctx context.Context) {
	if r.ask(ctx, "alarms", func(ctx context.Context) error {
		resp, err := r.c.Etcd().AlarmList(ctx)
		if err != nil {
			return err
		}
		for _, a := range resp.Alarms {
			r.s.Alarms = append(r.s.Alarms, Alarm{a.Alarm.String(), a.MemberID})
		}
		return nil
	}) {
		return
	}
	// The list needs a quorum; each member's own word does not.
	for _, m := range r.s.Members {
		for _, text := range m.Complaints {
			for _, kind := range []string{NoSpace, Corrupt} {
				if a := (Alarm{kind, m.ID}); strings.Contains(text, kind) && !slices.Contains(r.s.Alarms, a) {
					r.s.Alarms = append(r.s.Alarms, a)
				}
			}
		}
	}
}

func (r *reader) auth(ctx context.Context) {
	r.ask(ctx, "auth", func(ctx context.Context) error {
		resp, err := r.c.Etcd().AuthStatus(ctx)
		if err == nil {
			r.s.Auth = &resp.Enabled
		}
		return err
	})
}

func (r *reader) leases(ctx context.Context) {
	r.ask(ctx, "leases", func(ctx context.Context) error {
		resp, err := r.c.Etcd().Leases(ctx)
		if err == nil {
			r.s.Leases = len(resp.Leases)
		}
		return err
	})
}

// How the rows of the store about itself are called where they were not seen.
const (
	heartbeatRow = "heartbeat"
	epochRow     = "epoch"
	backupRow    = "last backup"
)

// rows reads the rows of the store about itself. They are read without a quorum if need be.
func (r *reader) rows(ctx context.Context) {
	for _, row := range []struct {
		what, key string
		take      func([]byte) error
	}{
		{heartbeatRow, schema.HeartbeatKey, func(b []byte) (err error) {
			r.s.Heartbeat, err = schema.DecodeTime(schema.HeartbeatKey, b)
			return err
		}},
		{epochRow, schema.EpochKey, func(b []byte) (err error) { r.s.Epoch, err = schema.DecodeEpoch(b); return err }},
		{backupRow, schema.BackupKey, func(b []byte) (err error) { r.s.Backup, err = schema.DecodeBackup(b); return err }},
	} {
		r.ask(ctx, row.what, func(ctx context.Context) error {
			resp, err := r.c.Etcd().Get(ctx, row.key, clientv3.WithSerializable())
			if err != nil || len(resp.Kvs) == 0 {
				return err
			}
			return row.take(resp.Kvs[0].Value)
		})
	}
}
