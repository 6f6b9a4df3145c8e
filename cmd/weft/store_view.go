// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/weft-net/weft/kvstore/care"
)

// storeStatusView is what store status prints as json. Sizes are bytes; what is null or left out was
// not seen.
type storeStatusView struct {
	Schema      string        `json:"schema"`
	Healthy     bool          `json:"healthy"`
	At          time.Time     `json:"at"`
	Members     []memberView  `json:"members"`
	Alarms      []alarmView   `json:"alarms"`
	Revision    int64         `json:"revision"`
	Compacted   int64         `json:"compacted,omitempty"`
	HistoryFrom *time.Time    `json:"historyFrom,omitempty"`
	Heartbeat   *time.Time    `json:"heartbeat,omitempty"`
	Epoch       string        `json:"epoch,omitempty"`
	Backup      *backupView   `json:"backup,omitempty"`
	Leases      *int          `json:"leases,omitempty"`
	Auth        *bool         `json:"auth,omitempty"`
	Prefixes    []prefixView  `json:"prefixes"`
	Unseen      []unseenView  `json:"unseen"`
	Problems    []problemView `json:"problems"`
}

type memberView struct {
	ID       string `json:"id,omitempty"` // hexadecimal, as etcdctl prints it
	Name     string `json:"name,omitempty"`
	Endpoint string `json:"endpoint"`
	Error    string `json:"error,omitempty"`
	Version  string `json:"version,omitempty"`
	Leader   bool   `json:"leader"`
	Learner  bool   `json:"learner,omitempty"`
	Behind   uint64 `json:"behind"`
	Size     int64  `json:"size"`
	InUse    int64  `json:"inUse"`
	Quota    int64  `json:"quota,omitempty"`
}

type alarmView struct {
	Alarm  string `json:"alarm"`
	Member string `json:"member"`
}

type backupView struct {
	At       time.Time `json:"at"`
	Revision int64     `json:"revision"`
	Size     int64     `json:"size"`
	Host     string    `json:"host,omitempty"`
}

type prefixView struct {
	Prefix string `json:"prefix"`
	Keys   int64  `json:"keys"`
	Bytes  *int64 `json:"bytes,omitempty"`
}

type unseenView struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

type problemView struct {
	Failed bool     `json:"failed"`
	What   string   `json:"what"`
	Means  string   `json:"means"`
	Steps  []string `json:"steps"`
}

func storeStatusOf(s care.Status) storeStatusView {
	v := storeStatusView{
		Schema: schemaName, Healthy: s.Healthy(), At: s.At.UTC(), Revision: s.Revision, Compacted: s.Compacted,
		HistoryFrom: timeOrNil(s.HistoryFrom), Heartbeat: timeOrNil(s.Heartbeat), Epoch: s.Epoch.ID, Auth: s.Auth,
		Members: []memberView{}, Alarms: []alarmView{}, Prefixes: []prefixView{}, Unseen: []unseenView{}, Problems: []problemView{},
	}
	if !s.Backup.At.IsZero() {
		v.Backup = &backupView{s.Backup.At, s.Backup.Revision, s.Backup.Size, s.Backup.Host}
	}
	if s.Leases >= 0 {
		v.Leases = &s.Leases
	}
	for _, m := range s.Members {
		id := ""
		if m.ID != 0 {
			id = fmt.Sprintf("%x", m.ID)
		}
		v.Members = append(v.Members, memberView{
			id, m.Name, m.Endpoint, m.Error, m.Version, m.Leader, m.Learner, m.Lag, m.Size, m.InUse, m.Quota,
		})
	}
	for _, al := range s.Alarms {
		v.Alarms = append(v.Alarms, alarmView{al.Kind, fmt.Sprintf("%x", al.Member)})
	}
	for _, p := range s.Prefixes {
		pv := prefixView{Prefix: p.Prefix, Keys: p.Keys}
		if p.Bytes >= 0 {
			pv.Bytes = &p.Bytes
		}
		v.Prefixes = append(v.Prefixes, pv)
	}
	for _, u := range s.Unseen {
		v.Unseen = append(v.Unseen, unseenView(u))
	}
	for _, p := range s.Problems {
		v.Problems = append(v.Problems, problemView(p))
	}
	return v
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
