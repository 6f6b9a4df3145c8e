// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/internal/loopback"
)

// startThree runs a cluster of three members until the test ends.
func startThree(t *testing.T) []*Server {
	t.Helper()
	cluster := map[string]string{}
	for i := range 3 {
		cluster[fmt.Sprintf("m%d", i)] = "http://" + loopback.Free(t)
	}
	out := make([]*Server, 3)
	t.Cleanup(func() {
		for _, s := range out {
			if s != nil {
				s.Kill()
			}
		}
	})
	var g errgroup.Group
	for i := range out {
		name := fmt.Sprintf("m%d", i)
		cfg := Config{
			Name: name, Dir: filepath.Join(t.TempDir(), name), ClientURL: "http://" + loopback.Free(t), PeerURL: cluster[name],
			Cluster: cluster, UnsafeNoFsync: true,
		}
		g.Go(func() (err error) {
			out[i], err = Start(t.Context(), cfg)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return out
}

func putWithin(t *testing.T, c *clientv3.Client, d time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	_, err := c.Put(ctx, "a", "1")
	return err
}

// eventually waits until the error is gone.
func eventually(t *testing.T, do func(context.Context) error) {
	t.Helper()
	all, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		ctx, stop := context.WithTimeout(all, 2*time.Second)
		err := do(ctx)
		stop()
		if err == nil {
			return
		}
		if all.Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestServer_OneOfThreeThenTwo(t *testing.T) {
	t.Parallel()
	members := startThree(t)
	c := dial(t, members[0].Endpoint())
	defer c.Close()
	put := func(ctx context.Context) error {
		_, err := c.Put(ctx, "a", "1")
		return err
	}
	eventually(t, put)

	members[2].Kill()
	eventually(t, put) // two of three agree, whoever led

	members[1].Kill()
	if err := putWithin(t, c, 2*time.Second); err == nil {
		t.Fatal("one member of three took a put")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if got, err := c.Get(ctx, "a", clientv3.WithSerializable()); err != nil || len(got.Kvs) != 1 {
		t.Fatalf("got %v, %v; the one that is left should show what it has to who asks for no more", got, err)
	}

	if err := members[1].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, put)
	if err := members[2].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, put)
}

// A member that lost its disk has forgotten its votes, so it comes back as another one.
func TestServer_MemberReplaced(t *testing.T) {
	t.Parallel()
	members := startThree(t)
	c := dial(t, members[0].Endpoint())
	defer c.Close()
	eventually(t, func(ctx context.Context) error {
		_, err := c.Put(ctx, "a", "1")
		return err
	})
	if err := members[2].Wipe(); err != nil {
		t.Fatal(err)
	}
	cfg := members[2].Config()
	members[2] = nil
	var id uint64
	eventually(t, func(ctx context.Context) error {
		list, err := c.MemberList(ctx)
		if err != nil {
			return err
		}
		for _, m := range list.Members {
			if m.Name == cfg.Name {
				id = m.ID
			}
		}
		return nil
	})
	eventually(t, func(ctx context.Context) error {
		_, err := c.MemberRemove(ctx, id)
		return err
	})
	eventually(t, func(ctx context.Context) error {
		_, err := c.MemberAdd(ctx, []string{cfg.PeerURL})
		return err
	})
	cfg.Join = true
	s, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	members[2] = s
	own := dial(t, s.Endpoint())
	defer own.Close()
	eventually(t, func(ctx context.Context) error {
		got, err := own.Get(ctx, "a")
		if err == nil && len(got.Kvs) != 1 {
			err = fmt.Errorf("the new member has %v", got.Kvs)
		}
		return err
	})
}

func TestStart_NotOfTheCluster(t *testing.T) {
	_, err := Start(t.Context(), Config{
		Name: "m9", Dir: t.TempDir(), ClientURL: "http://" + loopback.Free(t), PeerURL: "http://127.0.0.1:1",
		Cluster: map[string]string{"m1": "http://127.0.0.1:1"},
	})
	if want := "is not one of the cluster's"; err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("got %v, want an error with %q", err, want)
	}
}
