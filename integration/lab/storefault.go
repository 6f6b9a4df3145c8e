// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/weft-net/weft/kvstore/backup"
)

// savedDir is the copy of a member's data that SaveStore makes.
func savedDir(c *Cluster, member int) string { return storeDir(c, member) + ".saved" }

// WipeStore makes a cluster's store lose everything, as a lost disk does: it is killed, its data is
// removed, and it starts empty: no users, no roles, every client may do everything. It has the same
// cluster id as before, which is what the same flags give, or another one with newID.
func WipeStore(ctx context.Context, dir, cluster string, newID bool) error {
	return changeStore(ctx, dir, cluster, func(c *Cluster) error {
		if newID {
			c.EtcdToken = "weft-" + strconv.FormatInt(time.Now().UnixNano(), 36)
		}
		for i := range c.members() {
			if err := os.RemoveAll(storeDir(c, i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// SaveStore keeps a copy of the data of a cluster's store, as a snapshot of the disk does. The store
// is killed for it and starts again.
func SaveStore(ctx context.Context, dir, cluster string) error {
	return changeStore(ctx, dir, cluster, func(c *Cluster) error {
		for i := range c.members() {
			if err := replaceDir(savedDir(c, i), storeDir(c, i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// RollBackStore puts back what SaveStore kept: same cluster id, lower revision, and of what was
// written since nothing.
func RollBackStore(ctx context.Context, dir, cluster string) error {
	return changeStore(ctx, dir, cluster, func(c *Cluster) error {
		if _, err := os.Stat(savedDir(c, 0)); errors.Is(err, fs.ErrNotExist) {
			return errors.New("nothing was saved; save it first with 'weft lab store save " + cluster + "'")
		}
		for i := range c.members() {
			if err := replaceDir(storeDir(c, i), savedDir(c, i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// RestoreStore makes the data of a cluster's store from a file of 'weft store backup', as
// 'weft store restore' does: another cluster id, revisions that nobody has seen, a new epoch.
func RestoreStore(ctx context.Context, dir, cluster, file string) error {
	return changeStore(ctx, dir, cluster, func(c *Cluster) error {
		if len(c.members()) > 1 {
			return errors.New("a store of several members is not restored here")
		}
		return renew(storeDir(c, 0), func(dir string) error {
			_, err := backup.Restore(backup.RestoreConfig{
				File: file, Dir: dir, Name: memberName(c, 0), PeerURL: "http://127.0.0.1:0",
			})
			return err
		})
	})
}

// replaceDir makes one directory a copy of another.
func replaceDir(to, from string) error {
	return renew(to, func(dir string) error { return os.CopyFS(dir, os.DirFS(from)) })
}

// renew replaces a directory by one that is made beside it. If that fails the old one stays.
func renew(dir string, produce func(dir string) error) error {
	next := dir + ".new"
	// An earlier one may have been interrupted.
	if err := os.RemoveAll(next); err != nil {
		return err
	}
	if err := produce(next); err != nil {
		return errors.Join(err, os.RemoveAll(next))
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(next, dir)
}

// changeStore does something to the data of a cluster's store while it does not run.
func changeStore(ctx context.Context, dir, cluster string, change func(*Cluster) error) error {
	return update(ctx, dir, func(l *Lab) error {
		c, err := l.cluster(cluster)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not within %v", startTimeout))
		defer cancel()
		for _, p := range c.members() {
			if err := p.end(ctx, syscall.SIGKILL); err != nil {
				return fmt.Errorf("store of %s: %w", cluster, err)
			}
		}
		// Whatever happened to the data, the store shall not stay away.
		return errors.Join(change(c), l.startEtcd(ctx, c))
	})
}
