// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package care_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/care"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// TestRelieve_ThreeMembers fills a store of three, goes the way out, and sees what is said of a member
// that is down.
func TestRelieve_ThreeMembers(t *testing.T) {
	s := kvstoretest.StartMembers(t, 3, kvstoretest.Options{QuotaBytes: 4 << 20})
	c := s.Client()
	value := []byte(strings.Repeat("x", 64<<10))
	var err error
	for i := 0; err == nil; i++ {
		if i > 1000 {
			t.Fatal("the store does not fill up")
		}
		_, err = c.Put(t.Context(), "churn", value, 0)
	}
	var at *kvstore.EndpointError
	if !errors.As(err, &at) || at.Reason != kvstore.ReasonFull {
		t.Fatal(err)
	}
	// A member counts free pages only once it has compacted, which those that were not asked do later.
	var steps []string
	kvstoretest.Eventually(t, func() string {
		steps = nil
		if err := care.Relieve(t.Context(), c, func(step string) { steps = append(steps, step) }); err != nil {
			return err.Error()
		}
		return ""
	})
	var order []string
	for _, step := range steps {
		if m, ok := strings.CutPrefix(step, "defragmented "); ok {
			order = append(order, m)
		}
	}
	got := read(t, c)
	leader := slices.IndexFunc(got.Members, func(m care.Member) bool { return m.Leader })
	if leader < 0 || len(order) != 3 || order[2] != got.Members[leader].Name {
		t.Errorf("steps %q, members %+v: want each, the leader last", steps, got.Members)
	}
	if has(problems(got), "NOSPACE") || !got.Healthy() {
		t.Errorf("%q", problems(got))
	}
	if _, err := c.Put(t.Context(), "churn", value, 0); err != nil {
		t.Error(err)
	}

	down := (leader + 1) % 3
	s.Kill(slices.IndexFunc([]int{0, 1, 2}, func(i int) bool { return s.Member(i).Config().Name == got.Members[down].Name }))
	got = read(t, c)
	if !got.Healthy() || !has(problems(got), "! member "+got.Members[down].Name+" does not answer") {
		t.Errorf("one of three is down: %q", problems(got))
	}
	if err := care.Relieve(t.Context(), c, func(string) {}); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("relieve with a member down: %v", err)
	}
}
