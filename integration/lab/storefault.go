// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

func storeDir(c *Cluster) string { return filepath.Join(filepath.Dir(c.CA), "etcd") }

// savedDir is the copy that SaveStore makes.
func savedDir(c *Cluster) string { return filepath.Join(filepath.Dir(c.CA), "etcd.saved") }

// WipeStore makes a cluster's store lose everything, as a lost disk does: it is killed, its data is
// removed, and it starts empty: no users, no roles, every client may do everything. It has the same
// cluster id as before, which is what the same flags give, or another one with newID.
func WipeStore(ctx context.Context, dir, cluster string, newID bool) error {
	return changeStore(ctx, dir, cluster, func(c *Cluster) error {
		if newID {
			c.EtcdToken = "weft-" + strconv.FormatInt(time.Now().UnixNano(), 36)
		}
		return os.RemoveAll(storeDir(c))
	})
}

// SaveStore keeps a copy of the data of a cluster's store, as a snapshot of the disk does. The store
// is killed for it and starts again.
func SaveStore(ctx context.Context, dir, cluster string) error {
	return changeStore(ctx, dir, cluster, func(c *Cluster) error {
		if err := os.RemoveAll(savedDir(c)); err != nil {
			return err
		}
		return os.CopyFS(savedDir(c), os.DirFS(storeDir(c)))
	})
}

// RollBackStore puts back what SaveStore kept: same cluster id, lower revision, and of what was
// written since nothing.
func RollBackStore(ctx context.Context, dir, cluster string) error {
	return changeStore(ctx, dir, cluster, func(c *Cluster) error {
		if _, err := os.Stat(savedDir(c)); errors.Is(err, fs.ErrNotExist) {
			return errors.New("nothing was saved; save it first with 'weft lab store save " + cluster + "'")
		}
		if err := os.RemoveAll(storeDir(c)); err != nil {
			return err
		}
		return os.CopyFS(storeDir(c), os.DirFS(savedDir(c)))
	})
}

// changeStore does something to the data of a cluster's store while it does not run.
func changeStore(ctx context.Context, dir, cluster string, change func(*Cluster) error) error {
	return update(dir, func(l *Lab) error {
		c, err := l.cluster(cluster)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not within %v", startTimeout))
		defer cancel()
		if err := c.Etcd.end(ctx, syscall.SIGKILL); err != nil {
			return fmt.Errorf("store of %s: %w", cluster, err)
		}
		// Whatever happened to the data, the store shall not stay away.
		return errors.Join(change(c), l.startEtcd(ctx, c))
	})
}
