// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"time"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// Config says who we are and where the remotes are named.
type Config struct {
	// Dir holds an etcd client file for each remote cluster, named as the cluster. Empty: there are those
	// that Own has copies of, and no others.
	Dir string
	// Cluster, ClusterID and MaxClusters (255 or 511) are ours.
	Cluster     string
	ClusterID   uint32
	MaxClusters uint32
	// Pins are what was agreed with a remote when it joined, by its name.
	Pins map[string]Pin
	// Poll is how often the directory is read without being told of a change. Default 5 s.
	Poll time.Duration
	// ConfigPoll is how often a remote's cluster-config is read again. Default 30 s.
	ConfigPoll time.Duration
	// Connect bounds one attempt to reach a remote; after it the status says what is wrong.
	// Default 5 s.
	Connect time.Duration
	// RetryMin and RetryMax bound the pause before a remote is tried again. Defaults 500 ms, 15 s.
	RetryMin, RetryMax time.Duration
	// Kept holds what an earlier run knew of remotes. Nil: nothing.
	Kept Kept
	// Relist is the least time between two lists that a changed claim asks for. Default 5 s.
	Relist time.Duration
	// Guard says how the stores of remotes are guarded; Cluster, File and ReadOnly are set for each.
	Guard kvstore.GuardConfig
	// Own is a client of our own store, whose copy of a remote is read in place of the remote's store while
	// it is complete. A copy that weft's mirror speaks of makes a cluster a remote, also without a file.
	// Nil: remotes are always read themselves.
	Own *kvstore.Client
	// Peers is a client of our own store, whose rows of peers say what remotes joined with, beside Pins.
	// Nil: only Pins are known.
	Peers *kvstore.Client
	// Settled tells whether our own store is the one that an earlier run knew and nothing of it is held, so
	// that a copy which it does not have was taken away. Nil: it always is.
	Settled func() bool
	// Follow says how keys of our own store are followed. Its Source and Guard are not used.
	Follow kvstore.WatchConfig
	// Copies names the table that gets the bytes of a remote's rows of one kind, as they stand in its
	// store and as far as they are believed, by keys without their prefix; see kvstore.Watch.Copy. It is
	// asked at the beginning of each session. Endpoint slices are mirrored only for copies. Nil: none.
	Copies func(cluster string, id uint32, r schema.Resource) *state.Table[string, []byte]
	// Lineage is the directory in which the guards keep what they know of the stores, in files that
	// are named as the clusters. Empty: in memory only.
	Lineage string
}

// Kept holds the rows of remotes that an earlier run knew. Its methods are called from several
// goroutines.
type Kept interface {
	// Clusters names the remotes that rows are kept of. Our own cluster may be among them.
	Clusters() []string
	// ID is the cluster id that the rows of a remote were mirrored with, 0 where there are none.
	ID(cluster string) uint32
	// Restore puts the rows of one kind into their table, under SourceOf(cluster) and not synced,
	// and returns how many: the remote cannot be reached.
	Restore(cluster string, r schema.Resource) int
	// Rows are the same rows with the keys of the codec, and when they were last right: what is
	// absent from a store that is not the one they are of is held. There are none once the resource
	// was listed.
	Rows(cluster string, r schema.Resource) (rows iter.Seq[kvstore.KV], at time.Time)
	// Listed says that the rows in the table are those of the remote's store, and what is held of
	// what it lacks; false that they were dropped.
	Listed(cluster string, r schema.Resource, listed bool)
}

// Pin is what a remote was admitted with. It goes before what the remote says later, and before
// the claims of remotes that were not pinned: with another id it is refused, and what it declares beside
// its pod CIDRs is shown, and is anybody else's who has it pinned.
type Pin struct {
	ID       uint32
	PodCIDRs []netip.Prefix
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		MaxClusters: 255,
		Poll:        5 * time.Second,
		ConfigPoll:  30 * time.Second,
		Connect:     5 * time.Second,
		RetryMin:    500 * time.Millisecond,
		RetryMax:    15 * time.Second,
		Relist:      5 * time.Second,
	}
}

// Validate says which setting is wrong and what to write.
func (c Config) Validate() error {
	if err := schema.CheckClusterName(c.Cluster); err != nil {
		return err
	}
	if err := schema.CheckClusterID(c.ClusterID, c.MaxClusters); err != nil {
		return err
	}
	for name, d := range map[string]time.Duration{
		"poll": c.Poll, "config poll": c.ConfigPoll, "connect": c.Connect, "retry min": c.RetryMin, "retry max": c.RetryMax, "relist": c.Relist,
	} {
		if d <= 0 {
			return fmt.Errorf("%s %s: want more than nothing", name, d)
		}
	}
	if c.RetryMax < c.RetryMin {
		return errors.New("retry max is less than retry min")
	}
	return nil
}
