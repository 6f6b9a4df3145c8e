// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// Saved tells what Save wrote.
type Saved struct {
	File     string    `json:"file"`
	Size     int64     `json:"size"` // bytes
	Revision int64     `json:"revision"`
	Keys     int       `json:"keys"`
	Version  string    `json:"version"` // of etcd's storage, empty before 3.6
	Epoch    string    `json:"epoch"`   // of the store at that time
	At       time.Time `json:"at"`
	// Unrecorded is why the store does not know of the backup (it may be full); the file is good.
	Unrecorded string `json:"unrecorded,omitempty"`
}

// Save copies the store into a new file that only its owner may read, verifies it, and notes it in
// the store. The file appears complete or not at all; one that is there is never replaced. It needs
// the right of admin or root.
func Save(ctx context.Context, c *kvstore.Client, file string) (Saved, error) {
	s, err := save(ctx, c, file)
	if err != nil {
		return Saved{}, fmt.Errorf("back up to %s: %w", file, err)
	}
	s.Unrecorded = record(ctx, c, s)
	return s, nil
}

func save(ctx context.Context, c *kvstore.Client, file string) (Saved, error) {
	s := Saved{File: file, At: time.Now().UTC().Truncate(time.Second)}
	if _, err := os.Lstat(file); err == nil {
		return s, fs.ErrExist
	}
	row, ok, err := c.Get(ctx, schema.EpochKey)
	if err != nil {
		return s, err
	}
	if ok {
		epoch, err := schema.DecodeEpoch(row.Value)
		if err != nil {
			return s, err
		}
		s.Epoch = epoch.ID
	}
	temp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".part-*") // 0600
	if err != nil {
		return s, err
	}
	defer os.Remove(temp.Name())
	defer temp.Close() // a second Close does nothing; the first one is judged
	if s.Size, err = download(ctx, c, temp); err != nil {
		return s, err
	}
	if err := errors.Join(temp.Sync(), temp.Close()); err != nil {
		return s, err
	}
	st, err := snapshot.NewV3(zap.NewNop()).Status(temp.Name())
	if err != nil {
		return s, fmt.Errorf("verify: %w", err)
	}
	// A store that was never written is at revision 1; the tool that reads its file says 0.
	s.Revision, s.Keys, s.Version = max(1, st.Revision), st.TotalKey, st.Version
	// The commit point: from here on there is a backup.
	if err := unix.Renameat2(unix.AT_FDCWD, temp.Name(), unix.AT_FDCWD, file, unix.RENAME_NOREPLACE); err != nil {
		return s, err
	}
	return s, syncDir(filepath.Dir(file))
}

// download streams the snapshot and compares its hash, which follows it.
func download(ctx context.Context, c *kvstore.Client, to io.Writer) (size int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := c.Etcd().SnapshotWithVersion(ctx)
	if err != nil {
		return 0, c.Explain("snapshot", err)
	}
	defer resp.Snapshot.Close()
	sum := sha256.New()
	var tail []byte // the last bytes, which may be the hash
	buf := make([]byte, 1<<20)
	for {
		n, err := resp.Snapshot.Read(buf)
		size += int64(n)
		if _, werr := to.Write(buf[:n]); werr != nil {
			return size, werr
		}
		tail = append(tail, buf[:n]...)
		if over := len(tail) - sha256.Size; over > 0 {
			sum.Write(tail[:over])
			tail = append([]byte(nil), tail[over:]...)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return size, c.Explain("snapshot", err)
		}
	}
	if size%512 != sha256.Size {
		return size, errors.New("the snapshot ended early, it carries no hash")
	}
	if !bytes.Equal(tail, sum.Sum(nil)) {
		return size, errors.New("the snapshot's hash is wrong: it was damaged on the way")
	}
	return size, nil
}

// record notes the backup in the store and returns why it could not.
func record(ctx context.Context, c *kvstore.Client, s Saved) string {
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	value, err := schema.EncodeBackup(schema.Backup{At: s.At, Revision: s.Revision, Size: s.Size, Host: host})
	if err == nil {
		_, err = c.Put(ctx, schema.BackupKey, value, clientv3.NoLease)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
