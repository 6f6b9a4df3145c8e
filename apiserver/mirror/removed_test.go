// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/clustermesh"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// A remote whose file was removed goes after the grace, and not before; its neighbour stays.
func TestMirror_RemovedGoesAfterTheGrace(t *testing.T) {
	t.Parallel()
	s, far, near, stop := newCopiedPair(t)
	before := s.revisions(schema.MirrorPrefix("far", schema.ResourceIPs), schema.SyncedPrefix, schema.ClusterConfigPrefix)
	s.knowsNot("far")
	s.says("far", func(m schema.Mirror) bool { return !m.Removed.IsZero() && !m.Connected })
	far.address(1, 9) // nobody reads it any more
	s.always("the copy stands still", func() bool {
		return cmp.Equal(before, s.revisions(schema.MirrorPrefix("far", schema.ResourceIPs), schema.SyncedPrefix, schema.ClusterConfigPrefix))
	})
	// A file that comes back in time changes nothing, and the remote is followed again.
	s.knows("far", far.ClientConfig())
	s.says("far", func(m schema.Mirror) bool { return m.Removed.IsZero() && complete(m) })
	s.wantCopy(far)
	s.knowsNot("far")
	s.says("far", func(m schema.Mirror) bool { return !m.Removed.IsZero() })
	stop()

	// The grace has begun with the one before, and goes on with the next.
	s.start("two", func(cfg *Config) { cfg.Grace = time.Nanosecond })
	s.gone("far")
	s.wantCopy(near)
}

// A remote whose peering somebody has ended goes without a grace, also if nothing is left in the directory
// of a mirror that begins; who knows it by its copy hears of it first.
func TestMirror_LeftGoesAtOnce(t *testing.T) {
	t.Parallel()
	s, far, _, stop := newCopied(t)
	n := s.nodeWithoutFiles()
	n.sees(4, true, clustermesh.PhaseReady)
	stop()
	put(s, schema.Peers(), "far", schema.Peer{State: schema.PeerLeft, Since: time.Now(), ID: 2, Root: "root"})
	s.knowsNot("far")
	n.sees(4, true, clustermesh.PhaseReady)
	s.start("two", func(cfg *Config) { cfg.Grace = time.Hour })
	s.gone("far")
	kvstoretest.Eventually(t, func() string {
		if st := n.mesh.Status(); len(st.Remotes) > 0 || n.tables.IPs.Len() > 0 {
			return fmt.Sprintf("%d addresses, %+v", n.tables.IPs.Len(), st)
		}
		return ""
	})

	// It joins again.
	put(s, schema.Peers(), "far", schema.Peer{State: schema.PeerPending, Since: time.Now(), ID: 2, Root: "root"})
	s.knows("far", far.ClientConfig())
	s.wantCopy(far)
	n.sees(4, true, clustermesh.PhaseReady)
}

// A remote that is away and was removed while no mirror ran goes all the same.
func TestMirror_RemovedWhileNoMirrorRan(t *testing.T) {
	t.Parallel()
	s, far, near, stop := newCopiedPair(t)
	stop()
	far.Kill()
	s.knowsNot("far")
	before := s.revisions(schema.CachePrefix)
	_, stop = s.start("one", nil)
	s.says("far", func(m schema.Mirror) bool { return !m.Removed.IsZero() })
	if diff := cmp.Diff(before, s.revisions(schema.CachePrefix)); diff != "" {
		t.Errorf("changed before the grace was over (-before +after):\n%s", diff)
	}
	stop()
	s.start("one", func(cfg *Config) { cfg.Grace = time.Nanosecond })
	s.gone("far")
	s.wantCopy(near)
}

// A directory that is empty from the start, or that is not there, may be a mount that failed.
func TestMirror_EmptyDirectoryTakesNothing(t *testing.T) {
	t.Parallel()
	s, _, _, stop := newCopied(t)
	s.says("far", complete)
	stop()
	s.knowsNot("far")
	before := s.copies()
	none := func(cfg *Config) { cfg.Grace = time.Nanosecond }
	m, stop := s.start("one", none)
	kvstoretest.Eventually(t, func() string {
		if !m.Leading() {
			return "it does not lead"
		}
		return ""
	})
	s.says("far", func(m schema.Mirror) bool { return !m.Connected && strings.Contains(m.Reason, "mount that failed") })
	s.always("nothing goes", func() bool { return cmp.Equal(before, s.copies()) })
	stop()
	if err := os.Remove(s.dir); err != nil {
		t.Fatal(err)
	}
	_, stop = s.start("one", none)
	s.always("nothing goes without a directory", func() bool { return cmp.Equal(before, s.copies()) })
	stop()
	// A person may say that it was on purpose.
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.start("one", none)
	if err := Forget(t.Context(), s.client, "far", "a test"); err != nil {
		t.Fatal(err)
	}
	s.gone("far")
}

// A remote that is gone for good stays until somebody forgets it, and then goes from the memory of every
// mirror; one that is connected is not forgotten.
func TestMirror_Forget(t *testing.T) {
	t.Parallel()
	s, far, one, stop := newCopied(t)
	two, _ := s.start("two", nil)
	kvstoretest.Eventually(t, func() string {
		if st := two.Status(); len(st.Remotes) != 1 || st.Remotes[0].Phase != clustermesh.PhaseReady {
			return fmt.Sprintf("two does not read the remote: %+v", st)
		}
		return ""
	})
	if err := Forget(t.Context(), s.client, "far", "a test"); err == nil {
		t.Fatal("a remote that is connected was to be forgotten")
	}
	far.Kill()
	s.says("far", func(m schema.Mirror) bool { return !m.Connected && m.Reason != "" })
	for _, m := range []*Mirror{one, two} {
		kvstoretest.Eventually(t, func() string {
			if m.Status().Remotes[0].Connected {
				return "it is connected"
			}
			return ""
		})
	}
	if err := Forget(t.Context(), s.client, "far", "a test"); err != nil {
		t.Fatal(err)
	}
	emptied := func() bool {
		return len(s.under(schema.CachePrefix)) == 0 && len(s.under(schema.ClusterConfigPrefix+"far")) == 0 && len(s.under(schema.SyncedPrefix+"far/")) == 0
	}
	if !emptied() {
		t.Errorf("left: %v", s.under(schema.CachePrefix))
	}
	stop()
	kvstoretest.Eventually(t, func() string {
		if !two.Leading() {
			return "two does not lead"
		}
		return ""
	})
	s.always("the other does not bring it back", emptied)
	if err := Forget(t.Context(), s.client, "nobody", "a test"); err == nil {
		t.Error("a remote that nobody knows was forgotten")
	}
	// Its file is still there: when it comes back it is a new one.
	far.Restart()
	s.wantCopy(far)
}
