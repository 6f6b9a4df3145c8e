// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestWalk_EndsAtEachStep breaks one step after the other, beginning with the last, and wants the walk
// to go as far as that one and to say what to do.
func TestWalk_EndsAtEachStep(t *testing.T) {
	ca := kvstoretest.NewCA(t, "west")
	s := kvstoretest.Start(t, kvstoretest.Options{CA: ca, Name: "west"})
	c := s.Client()
	_, err := kvstore.Init(t.Context(), c, kvstore.InitConfig{Cluster: "west", Remotes: []string{"east"}})
	if err != nil {
		t.Fatal(err)
	}
	configs := schema.ClusterConfigs()
	config := func(v schema.ClusterConfig) {
		b, err := configs.Encode("west", v)
		if err != nil {
			t.Fatal(err)
		}
		s.Put(c, configs.Prefix+"west", string(b))
	}
	config(schema.ClusterConfig{ID: 2, MaxConnectedClusters: 255})
	s.Put(c, schema.HeartbeatKey, string(schema.EncodeTime(time.Now())))

	east, eastKey := ca.Issue(t, "remote-east", time.Hour)
	nobody, nobodyKey := ca.Issue(t, "nobody", time.Hour)
	old, oldKey := ca.Issue(t, "old", -time.Minute)
	otherCA := kvstoretest.NewCA(t, "other")
	foreign, foreignKey := otherCA.Issue(t, "remote-east", time.Hour)
	dir := t.TempDir()
	client := func(endpoint, ca, cert, key string) string {
		file := filepath.Join(dir, "west")
		text := fmt.Sprintf("endpoints: [%q]\ntrusted-ca-file: %s\ncert-file: %s\nkey-file: %s\n", endpoint, ca, cert, key)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good := func() string { return client(s.Endpoint(), ca.File, east, eastKey) }
	for _, tt := range []struct {
		name  string
		file  func() string
		edit  func(*Config)
		end   string // the step that fails; "" none
		found string
	}{
		{name: "good", file: good},
		{name: "no-file", file: func() string { return filepath.Join(dir, "none") }, end: "file", found: "no such file"},
		{name: "no-key", file: func() string { return client(s.Endpoint(), ca.File, east, filepath.Join(dir, "none")) }, end: "file", found: "no such file"},
		{name: "name", file: func() string { return client("https://nosuch.invalid:1", ca.File, east, eastKey) }, end: "dns", found: "nosuch.invalid"},
		{name: "port", file: func() string { return client("https://127.0.0.1:1", ca.File, east, eastKey) }, end: "tcp", found: "refused"},
		{name: "server-ca", file: func() string { return client(s.Endpoint(), otherCA.File, east, eastKey) }, end: "tls", found: "unknown authority"},
		{name: "expired", file: func() string { return client(s.Endpoint(), ca.File, old, oldKey) }, end: "tls", found: "expired on"},
		{name: "client-ca", file: func() string { return client(s.Endpoint(), ca.File, foreign, foreignKey) },
			edit: func(c *Config) { c.Timeout = 2 * time.Second }, end: "authorisation", found: "certificate"},
		{name: "user", file: func() string { return client(s.Endpoint(), ca.File, nobody, nobodyKey) }, end: "authorisation", found: "may not do this"},
		{name: "own-id", file: good, edit: func(c *Config) { c.OwnID = 2 }, end: "cluster-config", found: "that is our id"},
		{name: "size", file: good, edit: func(c *Config) { c.MaxClusters = 511 }, end: "cluster-config", found: "max clusters"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Config{Cluster: "west", File: tt.file(), MaxClusters: 255, OwnID: 1, Timeout: 5 * time.Second}
			if tt.edit != nil {
				tt.edit(&cfg)
			}
			wantEnd(t, Walk(t.Context(), cfg), tt.end, tt.found)
		})
	}

	cfg := Config{Cluster: "west", File: good(), MaxClusters: 255, OwnID: 1}
	config(schema.ClusterConfig{ID: 2, MaxConnectedClusters: 255, SyncedCanaries: true})
	wantEnd(t, Walk(t.Context(), cfg), "sync", "cilium/synced/west/")
	s.Delete(c, configs.Prefix+"west")
	wantEnd(t, Walk(t.Context(), cfg), "cluster-config", "there is no")
	s.Delete(c, schema.HeartbeatKey)
	wantEnd(t, Walk(t.Context(), cfg), "heartbeat", "there is none")
	s.Kill()
	wantEnd(t, Walk(t.Context(), cfg), "tcp", "refused")
}

func wantEnd(t *testing.T, steps []Step, end, found string) {
	t.Helper()
	if len(steps) != len(names) {
		t.Fatalf("got %d steps", len(steps))
	}
	ended := false
	for _, s := range steps {
		switch {
		case ended:
			if s.Tried {
				t.Errorf("%s was tried after %s", s.Name, end)
			}
		case s.Name == end:
			ended = true
			if s.OK || !strings.Contains(s.Found, found) || s.Todo == "" {
				t.Errorf("got %+v, want %q found and something to do", s, found)
			}
		case !s.OK || s.Found == "":
			t.Errorf("ended too early: %+v", s)
			return
		}
	}
	if ended != (end != "") {
		t.Errorf("the walk arrived, want it to end at %s", end)
	}
}

func TestRemotes(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"west": "endpoints: []", "west.crt": "endpoints:", "north": "no file of a client", "east": "endpoints:\n- x",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Remotes(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"east", "west"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := Remotes(filepath.Join(dir, "none")); err == nil {
		t.Error("a directory that is not there has remotes")
	}
}
