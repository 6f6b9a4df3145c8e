// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore/kvstoretest"
)

func TestDefragmenter_ThreeMembers(t *testing.T) {
	t.Parallel()
	s := kvstoretest.StartMembers(t, 3, kvstoretest.Options{})
	c := s.Client()
	k := testKeeper(t, c, "", "one")
	d := &defragmenter{client: c, log: kvstoretest.Log(t), fence: elect(t, c, k), last: k.metrics.defragged, smallest: 1, free: 0.5}
	value := []byte(strings.Repeat("x", 20_000))
	for i := range 200 {
		if _, err := c.Put(t.Context(), fmt.Sprint("fill/", i), value, 0); err != nil {
			t.Fatal(err)
		}
	}
	res, err := c.Etcd().Delete(t.Context(), "fill/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Etcd().Compact(t.Context(), res.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	// sizes are of all members, and the leader comes last.
	sizes := func() (out []int64, problem string) {
		members, err := d.healthy(t.Context())
		if err != nil {
			return nil, err.Error()
		}
		if len(members) != 3 || !members[2].leader || members[0].leader || members[1].leader {
			t.Fatalf("%+v: want three members, the leader last", members)
		}
		for _, m := range members {
			out = append(out, m.size)
		}
		return out, ""
	}
	var before []int64
	kvstoretest.Eventually(t, func() (problem string) {
		before, problem = sizes()
		return problem
	})
	// The members that were not asked compact their files later, and count a page as free with the next
	// write.
	kvstoretest.Eventually(t, func() string {
		if _, err := c.Put(t.Context(), "burn", nil, 0); err != nil {
			return err.Error()
		}
		if err := d.round(t.Context()); err != nil {
			return err.Error()
		}
		after, problem := sizes()
		if problem != "" {
			return problem
		}
		for _, n := range after {
			if n >= before[0]/2 {
				return fmt.Sprintf("%d bytes after %d", after, before)
			}
		}
		return ""
	})
	if testutil.ToFloat64(k.metrics.defragged) == 0 {
		t.Error("nothing is shown of it")
	}
	// With a member down the others must answer, so nothing is done.
	s.Kill(1)
	if err := d.round(t.Context()); err == nil {
		t.Error("worked with a member down")
	}
}
