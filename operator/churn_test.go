// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/care"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// churn is a store under endless change, with the compaction of an operator in simulated time.
type churn struct {
	quota   int64 // bytes
	rows    int   // that change, one after the other
	value   int   // bytes of each
	perTurn int   // changes between two turns of the compactor
	total   int64 // bytes of keys and values to write
}

// TestChurn_StaysBelowQuota writes three times the quota.
func TestChurn_StaysBelowQuota(t *testing.T) {
	churn{quota: 16 << 20, rows: 250, value: 4 << 10, perTurn: 400, total: 48 << 20}.run(t)
}

// TestSoak_Churn writes 325 rows a second, as of 36,000 endpoints that live for some minutes each, until
// a store that nobody compacts would hold 2 GiB. Time between the turns of the compactor is simulated.
func TestSoak_Churn(t *testing.T) {
	if os.Getenv("WEFT_SOAK") == "" {
		t.Skip("WEFT_SOAK does not say how long")
	}
	churn{quota: 2 << 30, rows: 36000, value: 350, perTurn: 325 * 300, total: 2 << 30}.run(t)
}

func (ch churn) run(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{QuotaBytes: ch.quota})
	c := kvstoretest.NewClient(t, s.ClientConfig())
	cfg := testConfig("one")
	lead := testKeeper(t, c, "", "one")
	k := &compactor{client: c, cfg: cfg, log: kvstoretest.Log(t), fence: elect(t, c, lead), done: prometheus.NewCounter(prometheus.CounterOpts{Name: "n"})}
	now, value := time.Now(), strings.Repeat("x", ch.value)
	var written, largest int64
	for change, turns := 0, 0; written < ch.total; turns++ {
		for i := 0; i < ch.perTurn; {
			var ops []clientv3.Op
			for ; i < ch.perTurn && len(ops) < 100; i++ {
				key := fmt.Sprintf("%s10.%d.%d.1", schema.IPsPrefix, change%ch.rows/256, change%ch.rows%256)
				ops = append(ops, clientv3.OpPut(key, value))
				written += int64(len(key) + len(value))
				change++
			}
			if _, err := c.Txn(t.Context()).Then(ops...).Commit(); err != nil {
				t.Fatalf("after %d bytes, %d turns: %v", written, turns, err)
			}
		}
		now = now.Add(cfg.Compact)
		if err := k.turn(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		awaitCompaction(t, c)
		largest = max(largest, look(t, c).Members[0].Size)
	}
	after := look(t, c)
	if len(after.Alarms) > 0 || largest >= ch.quota*8/10 {
		t.Errorf("%d bytes of %d after %d were written, alarms %v", largest, ch.quota, written, after.Alarms)
	}
	t.Logf("%d MiB written, the store grew to %d MiB of %d", written>>20, largest>>20, ch.quota>>20)
}

// awaitCompaction returns when etcd, which removes rows in the background, has removed those of before
// its compacted revision; simulated time leaves it none for that.
func awaitCompaction(t *testing.T, c *kvstore.Client) {
	t.Helper()
	h, err := c.Etcd().HashKV(t.Context(), c.Etcd().Endpoints()[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	if h.CompactRevision <= 0 {
		return
	}
	// Compactions are made one after another, and this one is answered when it is done.
	if _, err := c.Etcd().Compact(t.Context(), h.CompactRevision+1, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
}

func look(t *testing.T, c *kvstore.Client) care.Status {
	t.Helper()
	s, err := care.Read(t.Context(), c, care.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
