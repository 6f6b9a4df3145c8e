// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/weft-net/weft/kvstore/kvstoretest"
)

func TestRemotes_AwayUntilTheHeartbeatMoves(t *testing.T) {
	t.Parallel()
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := &remotes{dir: dir, own: "east", log: kvstoretest.Log(t)}
	now := time.Now()
	look := func(after time.Duration, want bool, what string) {
		t.Helper()
		now = now.Add(after)
		err := r.look(t.Context(), now)
		if got := r.away(now); got != want {
			t.Errorf("%s: away %v, want %v (%v)", what, got, want, err)
		}
	}
	if !r.away(now) {
		t.Error("nothing is known, and nobody is away")
	}
	write("east", "endpoints: [http://127.0.0.1:1]\n")
	write("ca.crt", "a certificate")
	look(0, false, "alone")

	write("west", fmt.Sprintf("endpoints: [%s]\n", s.Endpoint()))
	look(0, true, "never seen to live")
	beat(t, s, c, "1")
	look(time.Second, true, "it has none, then one")
	beat(t, s, c, "2")
	look(time.Minute, false, "it moves")
	look(2*time.Minute, false, "it may be slow")
	look(2*time.Minute, true, "it stands still")
	beat(t, s, c, "3")
	look(time.Minute, false, "it moves again")

	s.Kill()
	look(time.Minute, false, "no answer for a minute")
	look(5*time.Minute, true, "no answer")
	if err := os.Remove(filepath.Join(dir, "west")); err != nil {
		t.Fatal(err)
	}
	look(time.Second, false, "left")
	write("north", "endpoints: 7\n")
	look(time.Second, true, "a file that nobody can read")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	look(time.Second, true, "the directory is gone, the cluster is not")
}
