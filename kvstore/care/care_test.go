// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package care_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/goleak"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/care"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(kvstoretest.Patient{M: m})
}

// problems are the first lines of what is wrong, ! or x before them.
func problems(s care.Status) (out []string) {
	for _, p := range s.Problems {
		sign := "! "
		if p.Failed {
			sign = "x "
		}
		out = append(out, sign+p.What)
	}
	return out
}

func has(list []string, part string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, part) })
}

func read(t *testing.T, c *kvstore.Client) care.Status {
	t.Helper()
	s, err := care.Read(t.Context(), c, care.Options{Bytes: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRead_SaysWhatIsThere(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	got := read(t, c)
	if len(got.Members) != 1 || !got.Members[0].Leader || got.Members[0].Error != "" || got.Members[0].Quota != 2<<30 ||
		got.Members[0].Size == 0 || got.Members[0].Version == "" || got.Members[0].Name != "weft" {
		t.Errorf("members %+v", got.Members)
	}
	for _, want := range []string{"! no epoch", "! no heartbeat", "! no backup", "! auth is off"} {
		if !has(problems(got), want) {
			t.Errorf("no %q among %q", want, problems(got))
		}
	}
	if !got.Healthy() || got.Compacted != 0 {
		t.Errorf("got %+v", got)
	}

	beat := time.Now().Add(-time.Minute).UTC().Truncate(time.Second)
	s.Put(c, schema.HeartbeatKey, string(schema.EncodeTime(beat)))
	s.Fill(c, schema.IPsPrefix, 2500, "12345")
	s.Put(c, "elsewhere", "x")
	s.Compact(c)
	got = read(t, c)
	if got.Compacted != got.Revision || !got.HistoryFrom.Equal(beat) || !got.Heartbeat.Equal(beat) {
		t.Errorf("compacted %d of %d, from %v, heartbeat %v, want %v", got.Compacted, got.Revision, got.HistoryFrom, got.Heartbeat, beat)
	}
	want := []care.Prefix{
		{Prefix: schema.IPsPrefix, Keys: 2500, Bytes: int64(2500 * (len(schema.IPsPrefix) + 6 + 5))},
		{Prefix: care.Others, Keys: 3, Bytes: -1}, // heartbeat, elsewhere, burn
	}
	if !slices.Equal(got.Prefixes, want) {
		t.Errorf("prefixes %+v, want %+v", got.Prefixes, want)
	}
	if len(got.Unseen) > 0 || got.Leases != 0 || got.Auth == nil || *got.Auth {
		t.Errorf("unseen %+v, %d leases, auth %v", got.Unseen, got.Leases, got.Auth)
	}
}

func TestRead_StoreAway(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	cfg := s.ClientConfig()
	cfg.RequestTimeout = time.Second
	c := kvstoretest.NewClient(t, cfg)
	s.Kill()
	got := read(t, c)
	if got.Healthy() || !has(problems(got), "x no member answers") || len(got.Members) != 1 || got.Members[0].Error == "" {
		t.Errorf("%q, members %+v", problems(got), got.Members)
	}
}

// TestRead_LesserRole looks with the certificate of a node: what it may not see is named, not guessed.
func TestRead_LesserRole(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{CA: kvstoretest.NewCA(t, "ca"), Name: "etcd"})
	root := s.Client()
	if _, err := kvstore.Init(t.Context(), root, kvstore.InitConfig{Cluster: "a", Nodes: []string{"a1"}}); err != nil {
		t.Fatal(err)
	}
	got := read(t, s.ClientAs(kvstore.UserNode("a1")))
	var unseen []string
	for _, u := range got.Unseen {
		if !strings.Contains(u.Why, "may not see it") {
			t.Errorf("%s: %s", u.What, u.Why)
		}
		unseen = append(unseen, u.What)
	}
	if !slices.Contains(unseen, "leases") && got.Leases < 0 || !slices.Contains(unseen, "keys of others") {
		t.Errorf("unseen %q", unseen)
	}
	if got.Epoch.ID == "" || has(problems(got), "no epoch") || len(got.Members) != 1 || got.Members[0].Error != "" {
		t.Errorf("%+v", got)
	}
	if all := read(t, root); len(all.Unseen) > 0 || all.Auth == nil || !*all.Auth {
		t.Errorf("root: unseen %+v, auth %v", all.Unseen, all.Auth)
	}
}

// TestRelieve_AfterNoSpace fills a store until it refuses, sees that it is told so, and follows the way
// out.
func TestRelieve_AfterNoSpace(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{QuotaBytes: 4 << 20})
	c := s.Client()
	lease, err := c.Etcd().Grant(t.Context(), 60)
	if err != nil {
		t.Fatal(err)
	}
	value := []byte(strings.Repeat("x", 64<<10))
	for i := 0; err == nil; i++ {
		if i > 1000 {
			t.Fatal("the store does not fill up")
		}
		_, err = c.Put(t.Context(), "churn", value, 0)
	}
	var at *kvstore.EndpointError
	if !errors.As(err, &at) || at.Reason != kvstore.ReasonFull || !strings.Contains(err.Error(), "weft store status") {
		t.Fatalf("the put says: %v", err)
	}
	kvstoretest.Eventually(t, func() string { // the alarm takes its way through the log
		if got := read(t, c); !has(problems(got), "x alarm NOSPACE") {
			return strings.Join(problems(got), "; ")
		}
		return ""
	})
	full := read(t, c)
	if full.Healthy() || len(full.Problems[0].Steps) < 3 || !strings.Contains(full.Problems[0].Steps[0], "weft store relieve") {
		t.Errorf("problems %+v", full.Problems)
	}
	// What the words promise still works.
	if _, _, err := c.Get(t.Context(), "churn"); err != nil {
		t.Errorf("read: %v", err)
	}
	if _, err := c.Etcd().KeepAliveOnce(t.Context(), lease.ID); err != nil {
		t.Errorf("renew a lease: %v", err)
	}
	if _, err := c.Delete(t.Context(), "nothing"); err != nil {
		t.Errorf("delete: %v", err)
	}
	if _, err := c.Etcd().Grant(t.Context(), 60); !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Errorf("a new lease: %v", err)
	}

	var steps []string
	if err := care.Relieve(t.Context(), c, func(step string) { steps = append(steps, step) }); err != nil {
		t.Fatalf("%v after %q", err, steps)
	}
	if len(steps) != 3 || !strings.Contains(steps[0], "compacted") || !strings.Contains(steps[1], "defragmented") || !strings.Contains(steps[2], "disarmed") {
		t.Errorf("steps %q", steps)
	}
	if got := read(t, c); has(problems(got), "NOSPACE") || got.Members[0].Size >= full.Members[0].Size {
		t.Errorf("%q, %+v", problems(got), got.Members)
	}
	if _, err := c.Put(t.Context(), "churn", value, 0); err != nil {
		t.Error(err)
	}
}

// TestRelieve_RowsInUse does not disarm an alarm that would come back at once.
func TestRelieve_RowsInUse(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{QuotaBytes: 4 << 20})
	c := s.Client()
	value := []byte(strings.Repeat("x", 64<<10))
	// The file has free pages too, more where it was written in many steps: then there is room once more.
	var relieved error
	for i := 0; relieved == nil; {
		var err error
		for ; err == nil; i++ {
			_, err = c.Put(t.Context(), "key"+strings.Repeat("y", i), value, 0)
		}
		if !errors.Is(err, rpctypes.ErrNoSpace) {
			t.Fatal(err)
		}
		relieved = care.Relieve(t.Context(), c, func(string) {})
	}
	if !errors.Is(relieved, care.ErrStillFull) {
		t.Errorf("got %v, want %v", relieved, care.ErrStillFull)
	}
	if _, err := c.Put(t.Context(), "churn", value, 0); !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Errorf("the alarm is gone: %v", err)
	}
}

func TestRead_ContextEnds(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := care.Read(ctx, s.Client(), care.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestExporter_ShowsTheStore reads the metrics of a store that has everything but a backup.
func TestExporter_ShowsTheStore(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	reg := prometheus.NewRegistry()
	e, err := care.NewExporter(s.Client(), time.Hour, reg)
	if err != nil {
		t.Fatal(err)
	}
	kvstoretest.Go(t, e.Run)
	values := map[string]float64{}
	kvstoretest.Eventually(t, func() string {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			values[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
		}
		if len(values) == 0 {
			return "no metrics"
		}
		return ""
	})
	if values["weft_store_has_leader"] != 1 || values["weft_store_member_up"] != 1 || values["weft_store_quota_bytes"] != 2<<30 ||
		values["weft_store_size_bytes"] == 0 || values["weft_store_alarms"] != 0 {
		t.Errorf("got %v", values)
	}
	if _, ok := values["weft_store_backup_timestamp_seconds"]; ok {
		t.Error("a backup that nobody took")
	}
}
