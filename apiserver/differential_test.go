// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/weft-net/weft/apiserver/cache"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// oracle asks an etcd and an API server the same and compares.
type oracle struct {
	*fixture
	r         *rand.Rand
	etcd, api *grpc.ClientConn
	rev       int64 // the newest
	compacted int64
	lease     clientv3.LeaseID
	watches   []*pair
}

// pair is one watch of both.
type pair struct {
	req       *pb.WatchCreateRequest
	etcd, api pb.Watch_WatchClient
}

// period is how many questions lie between two restarts of the same thing, where there are so many.
const period = 20_000

// seedOf is WEFT_SEED, or another one each time, and prints it.
func seedOf(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("WEFT_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("WEFT_SEED: %v", err)
		}
	}
	t.Logf("WEFT_SEED=%d", seed)
	return seed
}

// TestServer_AnswersAsTheEtcd asks both at random. WEFT_SEED=N repeats a run that printed N,
// WEFT_DIFFERENTIAL=N asks N questions.
func TestServer_AnswersAsTheEtcd(t *testing.T) {
	n := 3000 // what a test run has time for
	if s := os.Getenv("WEFT_DIFFERENTIAL"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatalf("WEFT_DIFFERENTIAL: %v", err)
		}
	}
	answersAsTheEtcd(t, seedOf(t), n)
}

// TestSoak_AnswersAsTheEtcd does so a million times where WEFT_SOAK is set.
func TestSoak_AnswersAsTheEtcd(t *testing.T) {
	if os.Getenv("WEFT_SOAK") == "" {
		t.Skip("WEFT_SOAK is not set")
	}
	answersAsTheEtcd(t, seedOf(t), 1_000_000)
}

// answersAsTheEtcd writes at random, asks both n questions at random, and cuts connections, restarts both
// and compacts between: but for the ids in the header, and for what an etcd forgot and the server still
// knows, the answers are the same.
func answersAsTheEtcd(t *testing.T, seed uint64, n int) {
	f := &fixture{Server: kvstoretest.Start(t, kvstoretest.Options{}), ca: kvstoretest.NewCA(t, "mesh")}
	f.direct = f.Client()
	f.tune = func(s *Server) {
		// An etcd that is slow for a second is no reason to answer from memory here.
		c, err := cache.New(kvstoretest.NewClient(t, f.ProxyConfig()), cache.Config{Cluster: "east", Patience: time.Minute}, kvstoretest.Log(t))
		if err != nil {
			t.Fatal(err)
		}
		s.cache = c
	}
	f.start(t, nil)
	o := &oracle{fixture: f, r: rand.New(rand.NewPCG(seed, 0)), etcd: f.dialEtcd(t)}
	o.dialAPI(t)
	lease, err := f.direct.Etcd().Grant(t.Context(), 24*3600)
	if err != nil {
		t.Fatal(err)
	}
	o.lease = lease.ID
	every := min(n, period)
	for i := range n {
		if o.rev == 0 || o.r.IntN(25) == 0 {
			o.write(t)
		}
		switch o.r.IntN(12) {
		case 0:
			o.txn(t)
		case 1:
			o.stream(t)
		default:
			o.read(t)
		}
		if o.r.IntN(400) == 0 && len(o.watches) < 60 {
			o.watch(t)
		}
		if o.r.IntN(1000) == 0 {
			o.compact(t)
		}
		switch i % every {
		case every / 3:
			f.Proxy.Cut()
			f.wantFresh(t)
		case every / 2:
			o.endWatches(t) // a restart ends the etcd's own
			f.Kill()
			f.Restart()
			f.wantFresh(t)
			o.etcd = f.dialEtcd(t)
		case every * 5 / 6:
			o.endWatches(t)
			f.stop()
			f.start(t, nil)
			o.dialAPI(t)
		}
	}
	o.endWatches(t)
}

// dialAPI connects to the server. What its watches are told waits for a long time to be read here, so
// the connection takes more than one of an agent does.
func (o *oracle) dialAPI(t *testing.T) {
	t.Helper()
	o.api = o.dial(t, "remote", grpc.WithInitialWindowSize(16<<20), grpc.WithInitialConnWindowSize(1<<30))
}

func (o *oracle) key() string {
	if o.r.IntN(20) == 0 {
		return "cilium/.heartbeat"
	}
	return fmt.Sprintf("cilium/state/%02d", o.r.IntN(40))
}

func (o *oracle) write(t *testing.T) {
	t.Helper()
	used := map[string]bool{}
	var ops []clientv3.Op
	for range 1 + o.r.IntN(4) {
		k := o.key()
		switch {
		case used[k]:
		case o.r.IntN(4) == 0:
			ops = append(ops, clientv3.OpDelete(k))
		case o.r.IntN(3) == 0:
			ops = append(ops, clientv3.OpPut(k, fmt.Sprint(o.r.IntN(6)), clientv3.WithLease(o.lease)))
		default:
			ops = append(ops, clientv3.OpPut(k, fmt.Sprint(o.r.IntN(6))))
		}
		used[k] = true
	}
	resp, err := o.direct.Etcd().Txn(t.Context()).Then(ops...).Commit()
	if err != nil {
		t.Fatal(err)
	}
	o.rev = resp.Header.Revision
}

func (o *oracle) compact(t *testing.T) {
	t.Helper()
	at := max(1, o.rev-o.r.Int64N(20))
	if at <= o.compacted {
		return
	}
	if _, err := o.direct.Etcd().Compact(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	o.compacted = at
}

// rangeRequest makes a random read within the rights of a remote cluster, or a bad one.
func (o *oracle) rangeRequest() *pb.RangeRequest {
	r := &pb.RangeRequest{Key: []byte(o.key())}
	switch o.r.IntN(6) {
	case 0, 1:
		r.RangeEnd = []byte("cilium/state0")
		r.Key = []byte("cilium/state/")
	case 2, 3:
		if end := o.key(); string(r.Key) >= "cilium/state/" && end >= "cilium/state/" {
			r.RangeEnd = []byte(end) // may be before the key
		}
	}
	switch o.r.IntN(5) {
	case 0:
		r.Revision = max(1, o.rev-o.r.Int64N(30))
	case 1:
		r.Revision = o.rev + o.r.Int64N(3) - 1
	case 2:
		r.Revision = -o.r.Int64N(2)
	}
	if o.r.IntN(3) == 0 {
		r.Limit = o.r.Int64N(12) - 1
	}
	if o.r.IntN(4) == 0 {
		r.SortOrder = pb.RangeRequest_SortOrder(o.r.IntN(3))
		r.SortTarget = pb.RangeRequest_SortTarget(o.r.IntN(5))
	}
	r.KeysOnly, r.CountOnly = o.r.IntN(6) == 0, o.r.IntN(8) == 0
	for _, to := range []*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision} {
		if o.r.IntN(20) == 0 {
			*to = max(0, o.rev-o.r.Int64N(40))
		}
	}
	switch o.r.IntN(300) {
	case 0:
		r.Key = nil
	case 1:
		r.SortTarget = 17
	case 2:
		r.SortOrder = 17
	}
	return r
}

// same compares two answers to a request. A part of the history that the etcd forgot may still be
// known by the server, which then looks at what comes behind it in a transaction.
func (o *oracle) same(t *testing.T, req, want, got proto.Message, wantErr, gotErr error) {
	t.Helper()
	if errors.Is(rpctypes.Error(wantErr), rpctypes.ErrCompacted) &&
		(gotErr == nil || errors.Is(rpctypes.Error(gotErr), rpctypes.ErrFutureRev)) {
		return
	}
	if fmt.Sprint(status.Convert(wantErr)) != fmt.Sprint(status.Convert(gotErr)) {
		t.Fatalf("%v\netcd:   %v\nserver: %v", req, wantErr, gotErr)
	}
	if wantErr != nil {
		return
	}
	type headed interface{ GetHeader() *pb.ResponseHeader }
	for _, m := range []proto.Message{want, got} {
		if h := m.(headed).GetHeader(); h != nil {
			h.ClusterId, h.MemberId, h.RaftTerm = 0, 0, 0
		}
	}
	a, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if string(a) != string(b) {
		t.Fatalf("%v (-etcd +server):\n%s", req, cmp.Diff(want, got, protocmp.Transform()))
	}
}

func (o *oracle) read(t *testing.T) {
	t.Helper()
	req := o.rangeRequest()
	want, wantErr := pb.NewKVClient(o.etcd).Range(t.Context(), req)
	got, gotErr := pb.NewKVClient(o.api).Range(t.Context(), req)
	o.same(t, req, want, got, wantErr, gotErr)
}

// stream compares what the messages of a streamed read make together.
func (o *oracle) stream(t *testing.T) {
	t.Helper()
	req := o.rangeRequest()
	if req.Limit < 0 {
		req.Limit = 0 // makes etcd ask for chunks without end
	}
	if req.SortOrder == pb.RangeRequest_NONE {
		req.SortTarget = pb.RangeRequest_KEY // by another etcd sorts each chunk, and repeats keys
	}
	all := func(c *grpc.ClientConn) (*pb.RangeResponse, error) {
		st, err := pb.NewKVClient(c).RangeStream(t.Context(), proto.Clone(req).(*pb.RangeRequest))
		if err != nil {
			return nil, err
		}
		out := &pb.RangeResponse{}
		for {
			m, err := st.Recv()
			if errors.Is(err, io.EOF) {
				return out, nil
			}
			if err != nil {
				return nil, err
			}
			kvs := append(out.Kvs, m.RangeResponse.Kvs...)
			out = m.RangeResponse
			out.Kvs = kvs
		}
	}
	want, wantErr := all(o.etcd)
	got, gotErr := all(o.api)
	o.same(t, req, want, got, wantErr, gotErr)
}

func (o *oracle) compare() *pb.Compare {
	c := &pb.Compare{
		Key: []byte(o.key()), Result: pb.Compare_CompareResult(o.r.IntN(4)), Target: pb.Compare_CompareTarget(o.r.IntN(5)),
	}
	if o.r.IntN(4) == 0 && string(c.Key) >= "cilium/state/" {
		c.RangeEnd = []byte("cilium/state/9")
	}
	switch n := o.rev - o.r.Int64N(20); {
	case o.r.IntN(10) == 0: // nothing to compare with
	case c.Target == pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: fmt.Append(nil, o.r.IntN(6))}
	case c.Target == pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: n}
	case c.Target == pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: n}
	case c.Target == pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: o.r.Int64N(4)}
	default:
		c.TargetUnion = &pb.Compare_Lease{Lease: int64(o.lease) * o.r.Int64N(2)}
	}
	return c
}

func (o *oracle) txnRequest(depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range o.r.IntN(3) {
		r.Compare = append(r.Compare, o.compare())
	}
	for _, ops := range []*[]*pb.RequestOp{&r.Success, &r.Failure} {
		for range o.r.IntN(3) {
			op := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: o.rangeRequest()}}
			switch {
			case depth > 0 && o.r.IntN(4) == 0:
				op.Request = &pb.RequestOp_RequestTxn{RequestTxn: o.txnRequest(depth - 1)}
			case o.r.IntN(200) == 0:
				op.Request = nil
			}
			*ops = append(*ops, op)
		}
	}
	return r
}

func (o *oracle) txn(t *testing.T) {
	t.Helper()
	req := o.txnRequest(2)
	want, wantErr := pb.NewKVClient(o.etcd).Txn(t.Context(), req)
	got, gotErr := pb.NewKVClient(o.api).Txn(t.Context(), req)
	o.same(t, req, want, got, wantErr, gotErr)
}

// watch begins the same watch at both.
func (o *oracle) watch(t *testing.T) {
	t.Helper()
	p := &pair{etcd: openWatch(t, o.etcd), api: openWatch(t, o.api)}
	p.req = &pb.WatchCreateRequest{
		Key: []byte("cilium/state/"), RangeEnd: []byte("cilium/state0"), PrevKv: o.r.IntN(2) == 0, Fragment: o.r.IntN(2) == 0,
		StartRevision: max(o.compacted+1, o.rev-o.r.Int64N(60)),
	}
	switch o.r.IntN(6) {
	case 0:
		p.req.StartRevision = o.rev + 1
	case 1:
		p.req.Key, p.req.RangeEnd = []byte("cilium/state/07"), nil
	case 2:
		p.req.RangeEnd = []byte(o.key()) // may be empty
	}
	for _, kind := range []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT, pb.WatchCreateRequest_NODELETE} {
		if o.r.IntN(5) == 0 {
			p.req.Filters = append(p.req.Filters, kind)
		}
	}
	if string(p.req.RangeEnd) == "cilium/.heartbeat" {
		return // beyond the rights
	}
	o.read(t) // both are at the newest revision then
	send(t, p.etcd, p.req)
	send(t, p.api, p.req)
	want, got := next(t, p.etcd), next(t, p.api)
	o.same(t, p.req, want, got, nil, nil)
	if !want.Canceled {
		o.watches = append(o.watches, p)
	}
}

// endWatches compares what all watches were told.
func (o *oracle) endWatches(t *testing.T) {
	t.Helper()
	if len(o.watches) == 0 {
		return
	}
	for i, p := range o.watches {
		// Something that each of them is told last, whatever its filters.
		key := string(p.req.Key)
		if len(p.req.RangeEnd) > 0 {
			key += "!"
		}
		var end int64
		for range 2 {
			end = o.Put(o.direct, key, fmt.Sprint("end", i))
			o.rev = end
			if len(p.req.Filters) > 0 {
				resp, err := o.direct.Etcd().Delete(t.Context(), key)
				if err != nil {
					t.Fatal(err)
				}
				end, o.rev = resp.Header.Revision, resp.Header.Revision
			}
		}
		if len(p.req.Filters) == 2 {
			continue // is told nothing
		}
		if len(p.req.Filters) == 1 && p.req.Filters[0] == pb.WatchCreateRequest_NODELETE {
			end--
		}
		want, got := told(t, p.etcd, end), told(t, p.api, end)
		if !proto.Equal(&pb.WatchResponse{Events: want}, &pb.WatchResponse{Events: got}) {
			t.Fatalf("%v (-etcd +server):\n%s", p.req, cmp.Diff(want, got, protocmp.Transform()))
		}
	}
	o.watches = nil
}

// told returns the events of a stream up to a revision.
func told(t *testing.T, st pb.Watch_WatchClient, through int64) []*mvccpb.Event {
	t.Helper()
	var evs []*mvccpb.Event
	for {
		m := next(t, st)
		if m.Canceled {
			t.Fatalf("the watch was canceled: %v", m)
		}
		for _, ev := range m.Events {
			evs = append(evs, ev)
			if ev.Kv.ModRevision > m.Header.Revision {
				t.Fatalf("an event of %d under a header of %d", ev.Kv.ModRevision, m.Header.Revision)
			}
			if ev.Kv.ModRevision >= through {
				return evs
			}
		}
	}
}
