// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weft-net/weft/kvstore"
)

// defragmenter gives back the free part of the members' files. A member answers nothing meanwhile,
// so one goes at a time, the leader last, and only while all members are healthy.
type defragmenter struct {
	client *kvstore.Client
	log    *slog.Logger
	fence  fence
	last   prometheus.Gauge

	every    time.Duration // between two rounds
	smallest int64         // bytes of a file that is worth it
	free     float64       // share of a file that must be free
}

// Defaults of the defragmentation. They are no settings: nobody has two uses for them.
const (
	defragEvery    = time.Hour
	defragSmallest = 64 << 20
	defragFree     = 0.5
)

// member is one etcd of the store, as it says itself.
type member struct {
	name, endpoint string
	leader         bool
	size, inUse    int64
}

// Run makes a round at intervals until ctx ends.
func (d *defragmenter) Run(ctx context.Context) error {
	return every(ctx, d.every, func() {
		if err := d.round(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("store not defragmented", "reason", err.Error())
		}
	})
}

// round defragments each member that is worth it, followers first. The members are asked anew
// before each one: who leads may have changed, and the one before must be healthy again.
func (d *defragmenter) round(ctx context.Context) error {
	done := map[string]bool{}
	for {
		members, err := d.healthy(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(members, func(m member) bool {
			return !done[m.endpoint] && m.size >= d.smallest && float64(m.size-m.inUse) >= d.free*float64(m.size)
		})
		if i < 0 {
			return nil
		}
		if err := d.fence.check(ctx, d.client); err != nil {
			return err
		}
		m := members[i]
		done[m.endpoint] = true
		if _, err := d.client.Etcd().Defragment(ctx, m.endpoint); err != nil {
			return fmt.Errorf("defragment %s: %w", m.name, err)
		}
		d.last.SetToCurrentTime()
		d.log.Info("member defragmented", "member", m.name, "bytes", m.size, "free", m.size-m.inUse)
	}
}

// healthy returns the members, the leader last. That one does not answer, is behind, or sees an
// alarm is an error.
func (d *defragmenter) healthy(ctx context.Context) ([]member, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	alarms, err := d.client.Etcd().AlarmList(ctx)
	if err != nil {
		return nil, fmt.Errorf("alarms: %w", err)
	}
	for _, a := range alarms.Alarms {
		// A full store is what defragmentation is for; a corrupt one is not to be touched.
		if a.Alarm.String() != "NOSPACE" {
			return nil, fmt.Errorf("alarm %s stands", a.Alarm)
		}
	}
	list, err := d.client.Etcd().MemberList(ctx)
	if err != nil {
		return nil, fmt.Errorf("members: %w", err)
	}
	var out []member
	var leaders, newest uint64
	var applied []uint64
	for _, m := range list.Members {
		if len(m.ClientURLs) == 0 || m.IsLearner {
			return nil, fmt.Errorf("member %s does not serve yet", m.Name)
		}
		sctx, stop := context.WithTimeout(ctx, 5*time.Second)
		st, err := d.client.Etcd().Status(sctx, m.ClientURLs[0])
		stop()
		if err != nil {
			return nil, fmt.Errorf("member %s: %w", m.Name, err)
		}
		if st.Leader == 0 {
			return nil, fmt.Errorf("member %s sees no leader", m.Name)
		}
		leader := st.Leader == m.ID
		if leader {
			leaders++
		}
		newest = max(newest, st.RaftIndex)
		applied = append(applied, st.RaftAppliedIndex)
		out = append(out, member{m.Name, m.ClientURLs[0], leader, st.DbSize, st.DbSizeInUse})
	}
	if leaders != 1 {
		return nil, errors.New("the members do not agree on a leader")
	}
	for i, index := range applied {
		if index+1000 < newest {
			return nil, fmt.Errorf("member %s is %d entries behind", out[i].name, newest-index)
		}
	}
	slices.SortStableFunc(out, func(a, b member) int {
		switch {
		case a.leader == b.leader:
			return 0
		case b.leader:
			return -1
		}
		return 1
	})
	return out, nil
}
