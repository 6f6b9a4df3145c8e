// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/weft-net/weft/apiserver/cache"
)

// FuzzTxn runs whatever a client may send as a transaction: nothing panics, and nothing beyond the
// rights is answered.
func FuzzTxn(f *testing.F) {
	for _, r := range []*pb.TxnRequest{
		{},
		{
			Compare: []*pb.Compare{{Key: []byte("cilium/state/a"), RangeEnd: []byte("cilium/state0"), Target: pb.Compare_VALUE}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("cilium/state/a")}}}},
			Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{}}}},
		},
		{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{
			Key: []byte("cilium/state/"), RangeEnd: []byte("cilium/state0"), SortTarget: 2, SortOrder: 2, Limit: -1, KeysOnly: true,
		}}}}},
		{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("a")}}}, {}}},
	} {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	var kvs []*mvccpb.KeyValue
	for _, key := range []string{"cilium/cache/secret", "cilium/state/a", "cilium/state/b"} {
		kvs = append(kvs, &mvccpb.KeyValue{Key: []byte(key), Value: []byte("x"), CreateRevision: 2, ModRevision: 2, Version: 1})
	}
	store := cache.NewStore(cache.History{}, 5, kvs)
	may := rightsOf("remote", "east")
	f.Fuzz(func(t *testing.T, b []byte) {
		var r pb.TxnRequest
		if proto.Unmarshal(b, &r) != nil || checkTxn(&r, maxTxnOps) != nil || !allowTxn(may, &r) {
			return
		}
		tx := newTxn(t.Context(), store.Snapshot())
		resp := tx.run(&r)
		if tx.err != nil {
			return
		}
		wantAllowed(t, may, resp)
	})
}

func wantAllowed(t *testing.T, may rights, resp *pb.TxnResponse) {
	t.Helper()
	for _, op := range resp.Responses {
		for _, kv := range op.GetResponseRange().GetKvs() {
			if !may.allow(kv.Key, nil) {
				t.Fatalf("%q was answered", kv.Key)
			}
		}
		if nested := op.GetResponseTxn(); nested != nil {
			wantAllowed(t, may, nested)
		}
	}
}

// FuzzConfig reads whatever stands in a file.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(goodConfig))
	f.Add([]byte("name: [1"))
	f.Add([]byte("stuck: 5\nhistory-age: x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parseConfig(b); err == nil && c.Validate() != nil {
			t.Error("a configuration that is not valid was read")
		}
	})
}
