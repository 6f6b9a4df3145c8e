// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/agent/api"
)

// line returns the line of the status with a name.
func (n *testNode) line(component string) *api.StatusLine {
	n.t.Helper()
	s, err := n.client.Status(n.t.Context(), &api.StatusRequest{})
	n.must(err)
	for _, l := range s.Lines {
		if l.Component == component {
			return l
		}
	}
	n.t.Fatalf("no line %s", component)
	return nil
}

// known is what the tables of our cluster hold.
func (n *testNode) known() map[string][]string {
	n.t.Helper()
	got := map[string][]string{}
	for _, table := range []string{"nodes", "ips", "identities", "endpoints", "definitions"} {
		got[table] = slices.Sorted(maps.Keys(n.rows(table, "")))
	}
	return got
}

func TestAgent_CheckpointServesWithoutAStore(t *testing.T) {
	n := newTestNode(t, "")
	n.start()
	client, web := n.webService()
	want := n.known()
	for table, rows := range want {
		if len(rows) == 0 {
			t.Fatalf("table %s is empty", table)
		}
	}
	n.stop(syscall.SIGTERM)

	// No store at the next start: everything is known, old, and nothing is pruned.
	n.etcd.Kill()
	n.start()
	n.eventually("rows are back", func() error {
		if d := cmp.Diff(want, n.known()); d != "" {
			return errors.New(d)
		}
		return nil
	})
	n.eventually("services are derived", func() error {
		if len(n.rows("frontends", "")) == 0 {
			return errors.New("no frontends")
		}
		return nil
	})
	for _, name := range []string{"checkpoint", "tables"} {
		if l := n.line(name); !strings.Contains(l.Summary+l.Reason, "from checkpoint, ") {
			t.Errorf("line %s: %s, %s", name, l.Summary, l.Reason)
		}
	}
	_, second := n.pod("second", "app=web")
	if second.State != "ready" || second.Identity != web.Identity {
		t.Errorf("endpoint with a known identity: %v", second)
	}
	n.reach(client, net.JoinHostPort(second.Addresses[0], "80"), "second")
	n.reach(client, "10.96.0.9:8080", "web")
	n.restartStore()
	n.eventually("healthy", func() error {
		if l := n.line("checkpoint"); strings.Contains(l.Summary, "from checkpoint") {
			return fmt.Errorf("%s: %s", l.Component, l.Summary)
		}
		return n.unhealthy()
	})
	n.stop(syscall.SIGTERM)

	// A damaged file is put aside, and said.
	file := filepath.Join(n.dir, "state", "checkpoint", "a")
	b, err := os.ReadFile(file)
	n.must(err)
	b[len(b)/2] ^= 1
	n.must(os.WriteFile(file, b, 0o600))
	n.start()
	n.eventually("status says so", func() error {
		if l := n.line("checkpoint"); l.Health != api.Health_HEALTH_WARNING || !strings.Contains(l.Reason, "damaged") {
			return fmt.Errorf("%v: %s", l.Health, l.Reason)
		}
		return nil
	})
	if got, err := os.ReadFile(file + ".refused"); err != nil || string(got) != string(b) {
		t.Errorf("the file is not kept: %v", err)
	}
	n.stop(syscall.SIGTERM)
	if _, err := os.Stat(file); err != nil {
		t.Errorf("no new file: %v", err)
	}
}
