// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package care

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
)

// ErrStillFull means that the rows in use need more than the quota: only a larger quota, or fewer
// rows, help.
var ErrStillFull = errors.New("the store is still full")

// Relieve takes a store that is full back into service: it drops the whole history, gives the free
// pages of each member back to its disk, one member after the other and the leader last, and disarms
// the alarm. Watches that are behind list anew; nothing that stands in the store is lost. A member
// answers nothing while it is defragmented, about a second per 100 MiB.
//
// say is called after each step. It needs the right of admin or root.
func Relieve(ctx context.Context, c *kvstore.Client, say func(step string)) error {
	if err := relieve(ctx, c, say); err != nil {
		return fmt.Errorf("relieve the store: %w", err)
	}
	return nil
}

// defragmentTime bounds the defragmentation of one member.
const defragmentTime = 10 * time.Minute

func relieve(ctx context.Context, c *kvstore.Client, say func(string)) error {
	before, err := Read(ctx, c, Options{})
	if err != nil {
		return err
	}
	for _, m := range before.Members {
		if m.Error != "" {
			return fmt.Errorf("member %s does not answer (%s): bring it back first, or remove it", m.label(), m.Error)
		}
	}
	if slices.ContainsFunc(before.Alarms, func(a Alarm) bool { return a.Kind == Corrupt }) {
		return errors.New("alarm CORRUPT is raised: see weft store status for the way out of that first")
	}
	if err := c.Do(ctx, "compact", func(ctx context.Context) error {
		_, err := c.Etcd().Compact(ctx, before.Revision, clientv3.WithCompactPhysical())
		if errors.Is(err, rpctypes.ErrCompacted) {
			return nil
		}
		return err
	}); err != nil {
		return err
	}
	say(fmt.Sprintf("compacted to revision %d", before.Revision))
	members := slices.Clone(before.Members)
	slices.SortStableFunc(members, func(a, b Member) int {
		switch {
		case a.Leader == b.Leader:
			return 0
		case a.Leader:
			return 1
		}
		return -1
	})
	for _, m := range members {
		mctx, cancel := context.WithTimeout(ctx, defragmentTime)
		_, err := c.Etcd().Defragment(mctx, m.Endpoint)
		cancel()
		if err != nil {
			return fmt.Errorf("defragment %s: %w", m.label(), err)
		}
		say("defragmented " + m.label())
	}
	after, err := Read(ctx, c, Options{})
	if err != nil {
		return err
	}
	for _, m := range after.Members {
		if m.Error == "" && m.Full() >= NearlyFull {
			return fmt.Errorf("%w: the rows in use take %d of %d bytes at %s: raise --quota-backend-bytes, or remove rows, then run this again",
				ErrStillFull, m.InUse, m.Quota, m.label())
		}
	}
	for _, a := range after.Alarms {
		if a.Kind != NoSpace {
			continue
		}
		if err := c.Do(ctx, "disarm", func(ctx context.Context) error {
			_, err := c.Etcd().AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: a.Member, Alarm: etcdserverpb.AlarmType_NOSPACE})
			return err
		}); err != nil {
			return err
		}
		say(fmt.Sprintf("alarm %s of member %x disarmed", NoSpace, a.Member))
	}
	return nil
}
