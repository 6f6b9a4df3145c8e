// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"net/netip"
	"time"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// Phase is how far a remote has come. It only says what the control plane does: rows that were
// mirrored stay in every phase, until its file is removed.
//
//	connecting --> configuring --> syncing --> ready <--> away
//	     ^              |             |          |
//	     |              v             v          v
//	     +----------- refused <---- the cluster id changed or is another's
type Phase string

// The phases.
const (
	// PhaseInvalid: the file of the remote cannot be used; what was there before goes on.
	PhaseInvalid Phase = "invalid"
	// PhaseConnecting: nobody answers, or not yet.
	PhaseConnecting Phase = "connecting"
	// PhaseConfiguring: it answers and has no cluster-config.
	PhaseConfiguring Phase = "configuring"
	// PhaseRefused: its cluster-config cannot be accepted.
	PhaseRefused Phase = "refused"
	// PhaseSyncing: rows are on their way.
	PhaseSyncing Phase = "syncing"
	// PhaseReady: every resource was listed, and its store answers.
	PhaseReady Phase = "ready"
	// PhaseAway: every resource was listed, and the connection is lost; rows stay as they were.
	PhaseAway Phase = "away"
)

// Status is the mesh as one node sees it.
type Status struct {
	Directory DirectoryStatus `json:"directory"`
	// Remotes are sorted by name.
	Remotes []RemoteStatus `json:"remotes"`
}

// DirectoryStatus is how the directory of etcd client files stands.
type DirectoryStatus struct {
	Path string `json:"path,omitempty"`
	// Read is when it was read last without a problem.
	Read time.Time `json:"read,omitzero"`
	// Named: it has named a remote since this process began.
	Named bool `json:"named,omitempty"`
	// Problem says why it cannot be used now; the remotes stay as they were.
	Problem string `json:"problem,omitempty"`
}

// RemoteStatus is one remote cluster.
type RemoteStatus struct {
	Name string `json:"name"`
	// ID is its cluster id, 0 while it is not known.
	ID    uint32 `json:"id,omitempty"`
	Phase Phase  `json:"phase"`
	// Reason says why it is not ready and what to do; it may also name a problem of a ready one.
	Reason string `json:"reason,omitempty"`
	// NoFile: nothing names it but a copy in our own store.
	NoFile    bool     `json:"noFile,omitempty"`
	Endpoints []string `json:"endpoints,omitempty"`
	// Connected: at least one resource is being followed.
	Connected bool         `json:"connected"`
	Config    ConfigStatus `json:"config"`
	// Copy is what the mirror says of its copy in our own store, which is read in place of the remote's
	// store; nil: the remote itself is read.
	Copy *CopyStatus `json:"copy,omitempty"`
	// Pin is what it joined with; nil: it did not join with a token, or our own store cannot be read.
	Pin *PinStatus `json:"pin,omitempty"`
	// Refusals counts how often what it says about itself was refused.
	Refusals uint64 `json:"refusals,omitempty"`
	// Certificates are until when those of the connection are good.
	Certificates CertificateStatus `json:"certificates"`
	// Hold is what is in force of it although its store does not have it.
	Hold kvstore.HoldStatus `json:"hold"`
	// Heartbeat is when the remote's last sign of life arrived; zero where none did.
	Heartbeat time.Time `json:"heartbeat,omitzero"`
	// LastError is the last one of its connection, and may be over.
	LastError   string           `json:"lastError,omitempty"`
	LastErrorAt time.Time        `json:"lastErrorAt,omitzero"`
	Resources   []ResourceStatus `json:"resources,omitempty"`
}

// CopyStatus is what the mirror said last of its copy of a remote. Times are by our clock.
type CopyStatus struct {
	// By is which API server said it, empty for a mirror that says nothing, as Cilium's.
	By string `json:"by,omitempty"`
	// Said is when; zero: it never did.
	Said time.Time `json:"said,omitzero"`
	// Confirmed is when the copy was last known to be what the remote has.
	Confirmed time.Time `json:"confirmed,omitzero"`
	// Connected: the mirror follows the remote. Holding: the copy stands still, for the remote's store
	// lacks rows that nobody deleted. Reason says what is wrong.
	Connected bool   `json:"connected"`
	Holding   bool   `json:"holding,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

// CertificateStatus is until when the certificates of a remote's connection are good; zero: there is none,
// or it is not known.
type CertificateStatus struct {
	// Ours is the one of its client file, or that of the mirror where the copy is read, whichever ends
	// first. Server is that of its server, as it was shown when the newest connection was made.
	Ours   time.Time `json:"ours,omitzero"`
	Server time.Time `json:"server,omitzero"`
}

// PinStatus is what a remote joined with.
type PinStatus struct {
	ID       uint32         `json:"id"`
	PodCIDRs []netip.Prefix `json:"podCIDRs,omitempty"`
	// Beside are the pod CIDRs that its nodes declare outside of those. They are taken, unless they are
	// somebody else's: it may have grown.
	Beside []netip.Prefix `json:"beside,omitempty"`
}

// ConfigStatus is what the remote says about itself.
type ConfigStatus struct {
	Retrieved bool `json:"retrieved"`
	// At is when it was read last.
	At                   time.Time `json:"at,omitzero"`
	ID                   uint32    `json:"id,omitempty"`
	SyncedCanaries       bool      `json:"syncedCanaries,omitempty"`
	Cached               bool      `json:"cached,omitempty"`
	MaxConnectedClusters uint32    `json:"maxConnectedClusters,omitempty"`
	// EndpointSlices is how it exports endpoint slices, one of schema's words.
	EndpointSlices string `json:"endpointSlices,omitempty"`
}

// ResourceStatus is one kind of row of one remote.
type ResourceStatus struct {
	Resource schema.Resource `json:"resource"`
	// Listed: the rows are those that its store has, and what is held of what it lacks. Synced: and
	// nothing is held.
	Listed    bool `json:"listed"`
	Synced    bool `json:"synced"`
	Connected bool `json:"connected"`
	Rows      int  `json:"rows"`
	// Revision is that of the remote's store, up to which the rows are complete; Confirmed is when
	// that was the newest.
	Revision  int64     `json:"revision,omitempty"`
	Confirmed time.Time `json:"confirmed,omitzero"`
	// Rejected counts values that were refused wholly or in part, Faults the keys that are so now
	// (the first thousand).
	Rejected uint64 `json:"rejected,omitempty"`
	Faults   int    `json:"faults,omitempty"`
	// LastKey and LastReason are the newest of them.
	LastKey    string    `json:"lastKey,omitempty"`
	LastReason string    `json:"lastReason,omitempty"`
	LastAt     time.Time `json:"lastAt,omitzero"`
	// Waiting says what its watch waits for before it begins.
	Waiting string `json:"waiting,omitempty"`

	err   error
	errAt time.Time
	keys  map[string]bool
}

// reject takes one fault into the status.
func (s *ResourceStatus) reject(key, reason string, at time.Time) {
	if s.keys == nil {
		s.keys = make(map[string]bool)
	}
	if !s.keys[key] {
		s.keys[key] = true
		s.Faults++
	}
	if at.After(s.LastAt) {
		s.LastKey, s.LastReason, s.LastAt = key, reason, at
	}
}
