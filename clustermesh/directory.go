// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

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

	"github.com/fsnotify/fsnotify"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// maxFile is more than any client file has; certificates lie beside them.
const maxFile = 1 << 20

// file is an etcd client file of a remote, as it was found. It holds either a configuration or the
// reason why it has none.
type file struct {
	hash   [sha256.Size]byte
	config kvstore.Config
	err    error
	// copied: there is no file, but a copy in our own store, or there was one.
	copied bool
}

// directory is the folder of etcd client files, read again and again.
type directory struct {
	path string
	own  string

	// last is what was found at the last reading that was believed, and folder what it was read
	// from.
	last   map[string]file
	folder os.FileInfo
}

// errVanished is a directory that looks like a mount that failed.
var errVanished = errors.New("all client files are gone at once: taken for a mount that failed; to leave the mesh remove one file after the other")

// read returns the remotes that the directory names now. An error means that it cannot be believed,
// and that what was last found stays in force.
func (d *directory) read() (map[string]file, error) {
	if d.path == "" {
		return map[string]file{}, nil
	}
	folder, err := os.Stat(d.path)
	if err != nil {
		return nil, fmt.Errorf("read mesh directory: %w", err)
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, fmt.Errorf("read mesh directory: %w", err)
	}
	found := make(map[string]file)
	for _, e := range entries {
		name := e.Name()
		if name == d.own || schema.CheckClusterName(name) != nil {
			continue
		}
		f, ok := d.readFile(name)
		if old, had := d.last[name]; had && f.err != nil {
			// A file that is being written or that lost its target is not a remote that left.
			f.config = old.config
			ok = true
		}
		if ok {
			found[name] = f
		}
	}
	if len(found) == 0 && len(d.last) > 0 {
		// One that goes alone, from the same directory, was removed. Several at once were not, and
		// neither is one whose directory is another than before.
		if len(d.last) > 1 || !os.SameFile(folder, d.folder) {
			return nil, fmt.Errorf("mesh directory %s: %w", d.path, errVanished)
		}
	}
	d.last, d.folder = found, folder
	return found, nil
}

// readFile reads one entry; false where it is no client file. Symbolic links are followed: a
// mounted secret is made of them.
func (d *directory) readFile(name string) (file, bool) {
	path := filepath.Join(d.path, name)
	fail := func(err error) (file, bool) { return file{err: err}, false }
	in, err := os.Open(path)
	if err != nil {
		return fail(err)
	}
	defer in.Close()
	if info, err := in.Stat(); err != nil || !info.Mode().IsRegular() {
		return file{}, false
	}
	data, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return fail(err)
	}
	hash := sha256.Sum256(data)
	if !bytes.Contains(data, []byte("endpoints:")) {
		return file{hash: hash, err: fmt.Errorf("client file %s names no endpoints", path)}, false
	}
	if len(data) > maxFile {
		return file{hash: hash, err: fmt.Errorf("client file %s has more than %d bytes", path, maxFile)}, true
	}
	cfg, err := kvstore.ParseConfigFile(path, data)
	cfg.Sticky = true // the endpoints may be API servers
	return file{hash: hash, config: cfg, err: err}, true
}

// follow calls changed at once and then whenever the directory may be another: when the kernel says
// so, every poll for what it does not say (targets of links, a directory that was not there), and when
// it is poked. It returns when ctx ends.
func (d *directory) follow(ctx context.Context, poll time.Duration, poke <-chan struct{}, changed func()) error {
	var events chan fsnotify.Event
	var failures chan error
	watcher, err := fsnotify.NewWatcher()
	if err == nil { // without it polling has to do
		defer watcher.Close()
		events, failures = watcher.Events, watcher.Errors
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if watcher != nil && d.path != "" {
			// A directory that was replaced has to be watched anew; to add one again does nothing.
			if err := watcher.Add(d.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failures = nil
			}
		}
		changed()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-poke:
		case <-failures:
		case <-events:
			// What comes in one go (the files of a secret, a new link) is read once.
			settle(ctx, events)
		}
	}
}

// settle waits until no event has come for a moment, but not for long.
func settle(ctx context.Context, events <-chan fsnotify.Event) {
	end := time.NewTimer(200 * time.Millisecond)
	defer end.Stop()
	quiet := time.NewTimer(20 * time.Millisecond)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-end.C:
			return
		case <-quiet.C:
			return
		case <-events:
			quiet.Reset(20 * time.Millisecond)
		}
	}
}
