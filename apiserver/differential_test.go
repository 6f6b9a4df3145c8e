// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/weft-net/weft/apiserver/cache"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// oracle asks an etcd and an API server the same and compares.
type oracle struct {
	*fixture
	r         *rand.Rand
	etcd, api *side
	wire      int   // one question in so many goes over a connection
	rev       int64 // the newest
	compacted int64
	lease     clientv3.LeaseID
	watches   []*pair
	asked     []question // of the newest revision, and not compared yet
}

// pair is one watch of both.
type pair struct {
	req       *pb.WatchCreateRequest
	etcd, api pb.Watch_WatchClient
	want, got []*mvccpb.Event // what each was told so far
	fresh     bool            // nothing was awaited of it yet
}

// watchesAtOnce is how many watches are open together: each is told all that happens.
const watchesAtOnce = 12

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
	n := 20_000
	// Under the race detector the messages of a question take several times as long as its answers.
	const wire = 20
	if s := os.Getenv("WEFT_DIFFERENTIAL"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatalf("WEFT_DIFFERENTIAL: %v", err)
		}
	}
	answersAsTheEtcd(t, seedOf(t), n, wire)
}

// TestSoak_AnswersAsTheEtcd does so a million times where WEFT_SOAK is set.
func TestSoak_AnswersAsTheEtcd(t *testing.T) {
	if os.Getenv("WEFT_SOAK") == "" {
		t.Skip("WEFT_SOAK is not set")
	}
	answersAsTheEtcd(t, seedOf(t), 1_000_000, 1)
}

// answersAsTheEtcd writes at random, asks both n questions at random, and cuts connections, restarts both
// and compacts between: but for the ids in the header, and for what an etcd forgot and the server still
// knows, the answers are the same. What is asked between two changes is asked at once, one question in wire
// over a connection and the others of what is behind it.
func answersAsTheEtcd(t *testing.T, seed uint64, n, wire int) {
	quick := func(c *Config) { c.Limits.Requests = 1e6 }
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
	f.start(t, quick)
	o := &oracle{fixture: f, r: rand.New(rand.NewPCG(seed, 0)), wire: wire}
	o.reachEtcd(t)
	o.reachAPI(t)
	lease, err := f.direct.Etcd().Grant(t.Context(), 24*3600)
	if err != nil {
		t.Fatal(err)
	}
	o.lease = lease.ID
	every := min(n, period)
	for i := range n {
		if o.rev == 0 || o.r.IntN(40) == 0 {
			o.write(t)
		}
		switch o.r.IntN(24) {
		case 0, 1:
			o.ask(txnOf(o.txnRequest(2), o.r.IntN(o.wire) == 0))
		case 2:
			o.ask(streamOf(o.streamRequest()))
		default:
			o.ask(rangeOf(o.rangeRequest(), o.r.IntN(o.wire) == 0))
		}
		if o.r.IntN(400) == 0 {
			if len(o.watches) == watchesAtOnce {
				o.endWatches(t)
			}
			o.watch(t)
		}
		if o.r.IntN(1000) == 0 {
			o.compact(t)
		}
		switch i % every {
		case every / 3:
			o.compare(t)
			f.wantNewWatch(t, f.Proxy.Cut)
		case every / 2:
			o.endWatches(t) // a restart ends the etcd's own
			f.wantNewWatch(t, func() {
				f.Kill()
				f.Restart()
			})
			o.reachEtcd(t)
		case every * 5 / 6:
			o.endWatches(t)
			f.stop()
			f.start(t, quick)
			o.reachAPI(t)
		}
	}
	o.endWatches(t)
}

// wantNewWatch waits until the server follows the etcd anew, after something that ends its watch.
func (f *fixture) wantNewWatch(t *testing.T, end func()) {
	t.Helper()
	before := f.api.cache.Status().Watches
	end()
	kvstoretest.Eventually(t, func() string {
		if f.api.cache.Status().Watches == before {
			return "the server does not watch anew"
		}
		return ""
	})
	f.wantFresh(t)
}

// reachEtcd connects to the etcd.
func (o *oracle) reachEtcd(t *testing.T) {
	t.Helper()
	o.etcd = &side{conn: o.dialEtcd(t), kv: o.Server.KV()}
}

// reachAPI connects to the server. What its watches are told waits for a long time to be read here, so
// the connection takes more than one of an agent does.
func (o *oracle) reachAPI(t *testing.T) {
	t.Helper()
	conn := o.dial(t, "remote", grpc.WithInitialWindowSize(16<<20), grpc.WithInitialConnWindowSize(1<<30))
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: "remote"}, NotAfter: time.Now().Add(24 * time.Hour)}
	o.api = &side{conn: conn, kv: kvServer{Server: o.fixture.api}, as: &peer.Peer{AuthInfo: linkInfo{link: &link{cert: cert}}}}
}

func (o *oracle) key() string {
	if o.r.IntN(20) == 0 {
		return "cilium/.heartbeat"
	}
	return fmt.Sprintf("cilium/state/%02d", o.r.IntN(40))
}

func (o *oracle) write(t *testing.T) {
	t.Helper()
	o.compare(t)
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
	o.compare(t)
	// A watch that was not told everything yet would be ended by it.
	for _, p := range o.watches {
		if p.fresh {
			o.tell(t, p)
		}
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
	r.KeysOnly, r.CountOnly, r.Serializable = o.r.IntN(6) == 0, o.r.IntN(8) == 0, o.r.IntN(3) > 0
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

// streamRequest makes a random read that both can stream.
func (o *oracle) streamRequest() *pb.RangeRequest {
	r := o.rangeRequest()
	if r.Limit < 0 {
		r.Limit = 0 // makes etcd ask for chunks without end
	}
	if r.SortOrder == pb.RangeRequest_NONE {
		r.SortTarget = pb.RangeRequest_KEY // by another etcd sorts each chunk, and repeats keys
	}
	return r
}

func (o *oracle) comparison() *pb.Compare {
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
		r.Compare = append(r.Compare, o.comparison())
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

// watch begins the same watch at both.
func (o *oracle) watch(t *testing.T) {
	t.Helper()
	p := &pair{etcd: openWatch(t, o.etcd.conn), api: openWatch(t, o.api.conn), fresh: true}
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
	o.compare(t) // both are at the newest revision then
	send(t, p.etcd, p.req)
	send(t, p.api, p.req)
	want, got := next(t, p.etcd), next(t, p.api)
	same(t, p.req, want, got, nil, nil)
	if !want.Canceled {
		o.watches = append(o.watches, p)
	}
}

// endWatches compares what all watches were told.
func (o *oracle) endWatches(t *testing.T) {
	t.Helper()
	o.compare(t)
	if len(o.watches) == 0 {
		return
	}
	for _, p := range o.watches {
		o.tell(t, p)
		if !proto.Equal(&pb.WatchResponse{Events: p.want}, &pb.WatchResponse{Events: p.got}) {
			t.Fatalf("%v (-etcd +server):\n%s", p.req, cmp.Diff(p.want, p.got, protocmp.Transform()))
		}
	}
	o.watches = nil
}

// tell lets something happen that a watch is told of whatever its filters, and awaits that. One that has
// both filters is told nothing.
func (o *oracle) tell(t *testing.T, p *pair) {
	t.Helper()
	p.fresh = false
	if len(p.req.Filters) == 2 {
		return
	}
	key := string(p.req.Key)
	if len(p.req.RangeEnd) > 0 {
		key += "!"
	}
	through := o.Put(o.direct, key, fmt.Sprint("end", o.rev))
	o.rev = through
	if len(p.req.Filters) > 0 {
		resp, err := o.direct.Etcd().Delete(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if o.rev = resp.Header.Revision; p.req.Filters[0] == pb.WatchCreateRequest_NOPUT {
			through = o.rev
		}
	}
	p.want, p.got = append(p.want, told(t, p.etcd, through)...), append(p.got, told(t, p.api, through)...)
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
