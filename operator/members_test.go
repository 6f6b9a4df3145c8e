// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// One member of three is lost, then a second, then both are back: what stands stays, and
// changes go on as soon as two members agree.
func TestOperator_OneMemberOfThreeThenTwo(t *testing.T) {
	t.Parallel()
	s := kvstoretest.StartMembers(t, 3, kvstoretest.Options{})
	c := s.Client()
	put(t, c, schema.Definitions(), webKey, web("true"))
	put(t, c, schema.Endpoints(scope), podKey, pod("10.1.1.5"))
	first, _ := start(t, testConfig("first"), s.Client())
	leads := func(o *Operator) bool { return testutil.ToFloat64(o.metrics.leader) == 1 }
	kvstoretest.Eventually(t, func() string {
		if !leads(first) {
			return "the first does not lead"
		}
		return ""
	})
	second, _ := start(t, testConfig("second"), s.Client())
	want(t, c, exports+"default/web", "10.1.1.5")

	// What another cluster sees of it, by a watch that lives through all.
	seen := state.NewTable[schema.ServiceKey]("services", schema.ClusterService.Equal)
	cursor := seen.Cursor()
	defer cursor.Close()
	watch := kvstoretest.WatchConfig()
	watch.Source = "remote"
	kvstoretest.Go(t, kvstore.NewWatch(s.Client(), schema.Services(scope), seen, watch, kvstoretest.Log(t)).Run)
	nothingGone := func() {
		t.Helper()
		for _, ch := range cursor.Next(0) {
			if ch.Deleted {
				t.Errorf("%v was withdrawn", ch.Key)
			}
		}
	}
	export := func(addr string) {
		t.Helper()
		kvstoretest.Eventually(t, func() string {
			nothingGone()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			b, err := schema.Endpoints(scope).Encode(podKey, pod(addr))
			if err != nil {
				t.Fatal(err)
			}
			codec := schema.Endpoints(scope)
			if _, err := c.Put(ctx, codec.Prefix+codec.FormatKey(podKey), b, 0); err != nil {
				return err.Error()
			}
			row, ok := seen.Get(schema.ServiceKey{Cluster: "east", Namespace: "default", Name: "web"})
			if _, there := row.Value.Backends[netip.MustParseAddr(addr)]; !ok || !there {
				return fmt.Sprintf("exported: %+v", row.Value.Backends)
			}
			return ""
		})
	}
	export("10.1.1.6")

	s.Kill(0)
	export("10.1.1.7") // two of three agree

	s.Kill(1)
	// Nobody agrees: leaders step down, nothing moves, and what was read stays.
	kvstoretest.Eventually(t, func() string {
		nothingGone()
		if leads(first) || leads(second) {
			return "somebody still leads"
		}
		return ""
	})
	if row, ok := seen.Get(schema.ServiceKey{Cluster: "east", Namespace: "default", Name: "web"}); !ok || len(row.Value.Backends) != 1 {
		t.Errorf("without a majority the export is %+v", row.Value)
	}
	if held := first.mirror.guard.Status().Hold.Rows + second.mirror.guard.Status().Hold.Rows; held != 0 {
		t.Errorf("%d rows are held for the lack of a majority", held)
	}

	s.Restart(0, 1)
	export("10.1.1.8")
	if n := testutil.ToFloat64(first.metrics.broken) + testutil.ToFloat64(second.metrics.broken); n != 0 {
		t.Errorf("the same store was taken for another one %v times", n)
	}
}
