// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/weft-net/weft/integration/history"
)

// truth follows one store from its own namespace and writes every change of it into the history: what
// the watches of agents and operators are compared with.
type truth struct {
	rec    *history.Recorder
	name   string // of the cluster
	dir    string // of its data
	client *clientv3.Client

	// Owned by follow.
	based bool // the history has what stood at the beginning

	mu       sync.Mutex
	lives    []life
	revision int64 // delivered up to here
}

// life is one lineage of a store: it began when the stream over the one before had ended.
type life struct {
	name  string
	data  string // on its disk
	begin time.Time
}

// errForgotten means that the store has forgotten changes that were not seen.
var errForgotten = errors.New("the store has forgotten what was not seen yet")

// follow runs until ctx ends. Its streams never resume by themselves, as the client library's do: one that
// has ended may have been over data that is gone.
func (s *truth) follow(ctx context.Context) {
	for ended := (time.Time{}); ctx.Err() == nil; {
		was, err := s.stream(ctx, ended)
		if was {
			ended = time.Now()
		}
		if errors.Is(err, errForgotten) {
			s.based = false
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond): // the store is away
		}
	}
}

// stream follows the store over one stream and says whether there was one. ended is when the one before had.
func (s *truth) stream(ctx context.Context, ended time.Time) (was bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	const most = 64 << 20 // bytes of a message
	rpc, err := pb.NewWatchClient(s.client.ActiveConnection()).Watch(clientv3.WithRequireLeader(ctx), grpc.MaxCallRecvMsgSize(most))
	if err != nil {
		return false, err
	}
	name, err := s.open(ctx, rpc, ended)
	if err != nil {
		return false, err
	}
	for {
		resp, err := rpc.Recv()
		if err != nil {
			return true, err
		}
		if resp.Canceled {
			return true, fmt.Errorf("watch of %s: %s", s.name, resp.CancelReason)
		}
		for _, ev := range resp.Events {
			s.reach(ev.Kv.ModRevision)
			s.rec.Add(history.Record{
				Kind: history.Write, Store: s.name, Lineage: name, Revision: ev.Kv.ModRevision,
				Key: string(ev.Kv.Key), Deleted: ev.Type == mvccpb.Event_DELETE,
			})
		}
	}
}

// open lets a stream begin where the one before had ended, or with all that stands where the data is
// other than it was, and returns the name of the lineage.
func (s *truth) open(ctx context.Context, rpc pb.Watch_WatchClient, ended time.Time) (string, error) {
	data, err := s.data()
	if err != nil {
		return "", err
	}
	_, after := s.reached()
	rows := map[string]int64{}
	fresh := !s.based || !s.has(data)
	if fresh {
		got, err := s.client.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithKeysOnly())
		if err != nil {
			return "", err
		}
		after = got.Header.Revision
		for _, kv := range got.Kvs {
			rows[string(kv.Key)] = kv.ModRevision
		}
	}
	if err := rpc.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: after + 1,
	}}}); err != nil {
		return "", err
	}
	if err := created(rpc); err != nil {
		return "", err
	}
	// The stream stands, and with it the process that has this data.
	if now, err := s.data(); err != nil || now != data {
		return "", errors.Join(err, fmt.Errorf("the data of %s was replaced meanwhile", s.name))
	}
	name := s.begin(data, ended)
	if fresh {
		s.rec.Add(history.Record{Kind: history.Base, Store: s.name, Lineage: name, Revision: after, Rows: rows})
		s.based = true
		s.reach(after)
	}
	return name, nil
}

// created waits until a stream is confirmed.
func created(rpc pb.Watch_WatchClient) error {
	resp, err := rpc.Recv()
	switch {
	case err != nil:
		return err
	case resp.CompactRevision != 0:
		return errForgotten
	case !resp.Created || resp.Canceled:
		return fmt.Errorf("watch not created: %s", resp.CancelReason)
	}
	return nil
}

// data names what the store has on its disk: a directory is replaced when the data is.
func (s *truth) data() (string, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, s.dir, 0, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return "", &os.PathError{Op: "statx", Path: s.dir, Err: err}
	}
	return fmt.Sprintf("%d %d.%09d", st.Ino, st.Btime.Sec, st.Btime.Nsec), nil
}

func (s *truth) reach(revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision = revision
}

// reached says how many lives there were, and up to which revision of the last one it is followed.
func (s *truth) reached() (lives int, revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lives), s.revision
}

// has says whether the present life is one of that data.
func (s *truth) has(data string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lives) > 0 && s.lives[len(s.lives)-1].data == data
}

// begin notes the life of data, which began after a time if it is new, and returns its name.
func (s *truth) begin(data string, after time.Time) string {
	if !s.has(data) {
		s.mu.Lock()
		s.lives = append(s.lives, life{strconv.Itoa(len(s.lives) + 1), data, after})
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lives[len(s.lives)-1].name
}

// life is the name of the lineage that the store was of at a time.
func (s *truth) life(at time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := ""
	for _, l := range s.lives {
		if !at.Before(l.begin) {
			name = l.name
		}
	}
	return name
}
