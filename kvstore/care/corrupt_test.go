// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package care_test

import (
	"errors"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/care"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// TestRead_Corrupt raises the alarm that etcd raises when its members differ, and holds the words to
// what they promise.
func TestRead_Corrupt(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	s.Put(c, "there", "x")
	lease, err := c.Etcd().Grant(t.Context(), 60)
	if err != nil {
		t.Fatal(err)
	}
	alarm := etcdserverpb.NewMaintenanceClient(c.Etcd().ActiveConnection())
	member := read(t, c).Members[0]
	if _, err := alarm.Alarm(t.Context(), &etcdserverpb.AlarmRequest{
		Action: etcdserverpb.AlarmRequest_ACTIVATE, MemberID: member.ID, Alarm: etcdserverpb.AlarmType_CORRUPT,
	}); err != nil {
		t.Fatal(err)
	}
	got := read(t, c)
	if got.Healthy() || !has(problems(got), "x alarm CORRUPT") || !strings.Contains(strings.Join(got.Problems[0].Steps, "\n"), "docs/runbooks/member.md") {
		t.Errorf("%q, %+v", problems(got), got.Problems)
	}
	_, err = c.Put(t.Context(), "new", nil, 0)
	var at *kvstore.EndpointError
	if !errors.As(err, &at) || at.Reason != kvstore.ReasonCorrupt || !strings.Contains(err.Error(), "weft store status") {
		t.Errorf("the put says: %v", err)
	}
	if _, err := c.Delete(t.Context(), "there"); !errors.Is(err, rpctypes.ErrCorrupt) {
		t.Errorf("delete: %v", err)
	}
	if _, err := c.Etcd().Grant(t.Context(), 60); !errors.Is(err, rpctypes.ErrCorrupt) {
		t.Errorf("a new lease: %v", err)
	}
	if kv, ok, err := c.Get(t.Context(), "there"); err != nil || !ok || string(kv.Value) != "x" {
		t.Errorf("read: %v, %v, %v", kv, ok, err)
	}
	if _, err := c.Etcd().KeepAliveOnce(t.Context(), lease.ID); err != nil {
		t.Errorf("renew a lease: %v", err)
	}
	if err := care.Relieve(t.Context(), c, func(string) {}); err == nil || !strings.Contains(err.Error(), "CORRUPT") {
		t.Errorf("relieve: %v, want it to leave a corrupt store alone", err)
	}
	if _, err := c.Etcd().AlarmDisarm(t.Context(), &clientv3.AlarmMember{MemberID: member.ID, Alarm: etcdserverpb.AlarmType_CORRUPT}); err != nil {
		t.Fatal(err)
	}
	s.Put(c, "new", "x")
}
