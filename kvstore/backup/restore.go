// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package backup

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.uber.org/zap"

	"github.com/weft-net/weft/kvstore/schema"
)

// RestoreConfig says what a member is made from a backup. File and Dir are required.
type RestoreConfig struct {
	// File is what Save wrote.
	File string
	// Dir becomes the member's data directory. It must not exist, or be empty.
	Dir string
	// Name, PeerURL and InitialCluster are those that etcd will be started with. Defaults: "default",
	// http://localhost:2380, and the one member.
	Name, PeerURL, InitialCluster string
	// Token is the initial-cluster-token that etcd will be started with. All members of one restore
	// have the same, and no two restores do. Default with one member: random.
	Token string
	// Bump is what revisions grow by, so that none which a client has seen comes again: more than
	// the store has written since the backup. Default DefaultBump.
	Bump uint64
}

// DefaultBump is a year of 30 changes a second.
const DefaultBump = 1_000_000_000

// Restored tells what Restore made.
type Restored struct {
	Dir      string `json:"dataDir"`
	From     int64  `json:"fromRevision"` // of the backup
	Revision int64  `json:"revision"`     // the first of the new life
	Keys     int    `json:"keys"`
	Epoch    string `json:"epoch"`
	// Flags are those that this member's etcd must be started with.
	Flags []string `json:"flags"`
}

// Restore makes a data directory from a backup, without any running etcd. The restored store has a new
// epoch and revisions that nobody has seen, so that every client finds that it is not the store it
// knew. With several members, each is made by a Restore of its own from the same file with the same
// token and bump: the epoch follows from those, and is the same.
func Restore(cfg RestoreConfig) (Restored, error) {
	r, err := restore(cfg)
	if err != nil {
		return Restored{}, fmt.Errorf("restore %s to %s: %w", cfg.File, cfg.Dir, err)
	}
	return r, nil
}

func (c *RestoreConfig) fill() error {
	if c.File == "" || c.Dir == "" {
		return errors.New("a backup file and a data directory are needed")
	}
	if c.Name == "" {
		c.Name = "default"
	}
	if c.PeerURL == "" {
		c.PeerURL = "http://localhost:2380"
	}
	for u := range strings.SplitSeq(c.PeerURL, ",") {
		if p, err := url.Parse(u); err != nil || p.Host == "" {
			return fmt.Errorf("peer URL %q is not a URL with a host", u)
		}
	}
	if c.InitialCluster == "" {
		var all []string
		for u := range strings.SplitSeq(c.PeerURL, ",") {
			all = append(all, c.Name+"="+u)
		}
		c.InitialCluster = strings.Join(all, ",")
	}
	others := false
	for m := range strings.SplitSeq(c.InitialCluster, ",") {
		others = others || !strings.HasPrefix(m, c.Name+"=")
	}
	if c.Token == "" {
		if others {
			return errors.New("several members need an --initial-cluster-token: one that is new, and the same for all of them")
		}
		var random [8]byte
		rand.Read(random[:])
		c.Token = "weft-" + hex.EncodeToString(random[:])
	}
	if c.Bump == 0 {
		c.Bump = DefaultBump
	}
	return nil
}

func restore(cfg RestoreConfig) (_ Restored, err error) {
	if err := cfg.fill(); err != nil {
		return Restored{}, err
	}
	entries, err := os.ReadDir(cfg.Dir)
	there := err == nil
	switch {
	case len(entries) > 0:
		return Restored{}, errors.New("the data directory is not empty: move it away first, it may be the only other copy")
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return Restored{}, err
	}
	sum, err := hashFile(cfg.File)
	if err != nil {
		return Restored{}, err
	}
	m := snapshot.NewV3(zap.NewNop())
	st, err := m.Status(cfg.File)
	if err != nil {
		return Restored{}, fmt.Errorf("it is no backup, or a damaged one: %w", err)
	}
	// Made beside, so that what stands at Dir is whole.
	temp, err := os.MkdirTemp(filepath.Dir(filepath.Clean(cfg.Dir)), filepath.Base(cfg.Dir)+".part-*")
	if err != nil {
		return Restored{}, err
	}
	defer os.RemoveAll(temp)
	if err := m.Restore(snapshot.RestoreConfig{
		SnapshotPath: cfg.File, Name: cfg.Name, OutputDataDir: temp, PeerURLs: strings.Split(cfg.PeerURL, ","),
		InitialCluster: cfg.InitialCluster, InitialClusterToken: cfg.Token, RevisionBump: cfg.Bump, MarkCompacted: true,
	}); err != nil {
		return Restored{}, err
	}
	r := Restored{Dir: cfg.Dir, From: st.Revision, Keys: st.TotalKey, Epoch: epochOf(sum, cfg.Token), Flags: []string{
		"--data-dir=" + cfg.Dir, "--name=" + cfg.Name, "--initial-advertise-peer-urls=" + cfg.PeerURL,
		"--initial-cluster=" + cfg.InitialCluster, "--initial-cluster-token=" + cfg.Token,
	}}
	if r.Revision, err = writeEpoch(filepath.Join(temp, "member", "snap", "db"), r.Epoch); err != nil {
		return Restored{}, err
	}
	if there {
		if err := os.Remove(cfg.Dir); err != nil {
			return Restored{}, err
		}
	}
	// The commit point: from here on there is a data directory.
	if err := os.Rename(temp, cfg.Dir); err != nil {
		return Restored{}, err
	}
	return r, syncDir(filepath.Dir(filepath.Clean(cfg.Dir)))
}

// epochOf derives the epoch, so that each member of a restore comes to the same.
func epochOf(file []byte, token string) string {
	sum := sha256.Sum256(append([]byte("weft epoch\n"+token+"\n"), file...))
	return hex.EncodeToString(sum[:16])
}

func hashFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

// writeEpoch puts the epoch into the database of a member that does not run, as the next revision. It
// carries no time, which would differ between members.
func writeEpoch(db, id string) (revision int64, err error) {
	value, err := schema.EncodeEpoch(schema.Epoch{ID: id})
	if err != nil {
		return 0, err
	}
	defer func() {
		// etcd's storage says by panic that the data are not what it wrote.
		if p := recover(); p != nil {
			err = fmt.Errorf("write the epoch: %v", p)
		}
	}()
	be := backend.NewDefaultBackend(zap.NewNop(), db)
	defer func() { err = errors.Join(err, be.Close()) }()
	kv := mvcc.NewStore(zap.NewNop(), be, &lease.FakeLessor{}, mvcc.StoreConfig{})
	revision = kv.Put([]byte(schema.EpochKey), value, lease.NoLease)
	kv.Commit()
	return revision, kv.Close()
}
