// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package backup_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/backup"
	"github.com/weft-net/weft/kvstore/embedded"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(kvstoretest.Patient{M: m})
}

const oldEpoch = "00112233445566778899aabbccddeeff"

// TestRestore_IsAnotherStore takes a backup, goes on writing, restores, and starts an etcd on the
// result: the rows are those of the backup, and nobody can take the store for the one it came from.
func TestRestore_IsAnotherStore(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	epoch, err := schema.EncodeEpoch(schema.Epoch{ID: oldEpoch})
	if err != nil {
		t.Fatal(err)
	}
	s.Put(c, schema.EpochKey, string(epoch))
	s.Fill(c, "cilium/state/ip/v1/default/", 300, "x")
	dir := t.TempDir()
	file := filepath.Join(dir, "weft.db")
	saved, err := backup.Save(t.Context(), c, file)
	if err != nil {
		t.Fatal(err)
	}
	if saved.Epoch != oldEpoch || saved.Unrecorded != "" || saved.Revision == 0 || saved.Keys == 0 {
		t.Errorf("saved %+v", saved)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 || st.Size() != saved.Size {
		t.Errorf("file: %v, %v", st, err)
	}
	if kv, ok, err := c.Get(t.Context(), schema.BackupKey); err != nil || !ok {
		t.Errorf("the store does not know of the backup: %v", err)
	} else if b, err := schema.DecodeBackup(kv.Value); err != nil || b.Revision != saved.Revision || b.Size != saved.Size {
		t.Errorf("recorded %+v, %v, want %+v", b, err, saved)
	}
	if _, err := backup.Save(t.Context(), c, file); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second backup to the same file: %v, want %v", err, fs.ErrExist)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*.part*")); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
	s.Delete(c, "cilium/state/ip/v1/default/000007")
	s.Burn(c, 50)
	before := s.Put(c, "burn", "last")
	s.Kill()

	to := filepath.Join(dir, "restored")
	old := s.Config()
	cfg := backup.RestoreConfig{File: file, Dir: to, Name: old.Name, PeerURL: old.PeerURL, Token: "again"}
	made, err := backup.Restore(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if made.From != saved.Revision || made.Revision <= before+backup.DefaultBump/2 || made.Epoch == oldEpoch {
		t.Errorf("restored %+v from %+v", made, saved)
	}
	if _, err := backup.Restore(cfg); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a second restore to the same directory: %v", err)
	}
	second := cfg
	second.Dir = filepath.Join(dir, "second")
	if other, err := backup.Restore(second); err != nil || other.Epoch != made.Epoch || other.Revision != made.Revision {
		t.Errorf("the second member is %+v, %v, want epoch %s", other, err, made.Epoch)
	}

	now := old
	now.Dir, now.Token = to, "again"
	e, err := embedded.Start(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Kill()
	ccfg := kvstore.DefaultConfig()
	ccfg.Endpoints = []string{e.Endpoint()}
	fresh := kvstoretest.NewClient(t, ccfg)
	kv, ok, err := fresh.Get(t.Context(), schema.EpochKey)
	if err != nil || !ok {
		t.Fatalf("no epoch: %v", err)
	}
	if got, err := schema.DecodeEpoch(kv.Value); err != nil || got.ID != made.Epoch || kv.ModRevision != made.Revision {
		t.Errorf("epoch %+v at %d, %v, want %s at %d", got, kv.ModRevision, err, made.Epoch, made.Revision)
	}
	resp, err := fresh.Etcd().Get(t.Context(), "cilium/state/ip/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || resp.Count != 300 || resp.Header.Revision < made.Revision {
		t.Errorf("rows %+v, %v", resp, err)
	}
	// Who knew a revision after the backup must not resume from it.
	if _, err := fresh.Etcd().Get(t.Context(), "burn", clientv3.WithRev(before)); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("a revision of the life before: %v, want %v", err, rpctypes.ErrCompacted)
	}
	if _, err := fresh.Put(t.Context(), "burn", nil, 0); err != nil {
		t.Error(err)
	}
}

func TestRestore_Refuses(t *testing.T) {
	dir := t.TempDir()
	full := filepath.Join(dir, "full")
	if err := os.MkdirAll(filepath.Join(full, "member"), 0o700); err != nil {
		t.Fatal(err)
	}
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, []byte(strings.Repeat("junk", 4096)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		cfg  backup.RestoreConfig
		want string
	}{
		"no-directory":  {backup.RestoreConfig{File: junk}, "data directory"},
		"not-empty":     {backup.RestoreConfig{File: junk, Dir: full}, "not empty"},
		"no-file":       {backup.RestoreConfig{File: filepath.Join(dir, "none"), Dir: filepath.Join(dir, "new")}, "no such file"},
		"no-backup":     {backup.RestoreConfig{File: junk, Dir: filepath.Join(dir, "new")}, "it is no backup"},
		"members-token": {backup.RestoreConfig{File: junk, Dir: filepath.Join(dir, "new"), Name: "a", InitialCluster: "a=http://a:1,b=http://b:1"}, "initial-cluster-token"},
		"peer":          {backup.RestoreConfig{File: junk, Dir: filepath.Join(dir, "new"), PeerURL: "x"}, "peer URL"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := backup.Restore(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
			if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
				t.Error("a directory was made")
			}
		})
	}
}
