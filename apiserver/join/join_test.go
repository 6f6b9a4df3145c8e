// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

// TestJoin_AndLeave joins two clusters, both of which then read each other with the files that were
// written, and has one of them leave, which the other is cut off by, and join again.
func TestJoin_AndLeave(t *testing.T) {
	t.Parallel()
	east, west := newCluster(t, "east", 1, "10.1.0.0/24"), newCluster(t, "west", 2, "10.2.0.0/24")
	east.awaitDoor(t, false)
	tok := east.token(t, Order{For: "west", ID: 2})
	if b, err := east.client.List(t.Context(), schema.WeftPrefix, kvstore.ListOptions{}); err != nil || strings.Contains(string(b.KVs[0].Value), string(tok.Secret[:])) {
		t.Fatalf("the store has the secret, or %v", err)
	}
	got, err := west.join(t, tok, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Seen != "" || got.SeenThere != "" {
		t.Errorf("got %+v", got)
	}
	e, w := east.wantState(t, "west", schema.PeerJoined), west.wantState(t, "east", schema.PeerJoined)
	for _, p := range []schema.Peer{e, w} {
		if len(p.Issued) != 1 || p.Issued[0].Revoked || time.Until(p.Issued[0].Expires) < trust.MinPeerLife {
			t.Errorf("certificates %+v", p.Issued)
		}
	}
	if diff := cmp.Diff(prefixes("10.2.0.0/24"), e.PodCIDRs, compareText); diff != "" || e.ID != 2 {
		t.Errorf("pins of west: id %d, (-want +got):\n%s", e.ID, diff)
	}
	east.awaitDoor(t, false) // nobody needs it any more
	if problems, err := testutil.GatherAndLint(east.registry); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %v", problems, err)
	}
	if n, err := testutil.GatherAndCount(east.registry, "weft_join_peer_state", "weft_join_certificate_seconds"); err != nil || n != 3 {
		t.Errorf("%d metrics of one peer, want its state and two certificates; %v", n, err)
	}

	read := func(c *cluster, peer, key string) error {
		cfg, err := kvstore.ReadConfigFile(filepath.Join(c.settings.MeshDir, peer))
		if err != nil {
			return err
		}
		client, err := kvstore.New(cfg, kvstoretest.Log(t))
		if err != nil {
			return err
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err = client.List(ctx, key, kvstore.ListOptions{})
		return err
	}
	for _, c := range []struct {
		by   *cluster
		peer string
	}{{east, "west"}, {west, "east"}} {
		if err := read(c.by, c.peer, "cilium/state/nodes/v1/"); err != nil {
			t.Errorf("%s is not read: %v", c.peer, err)
		}
		if err := read(c.by, c.peer, schema.WeftPrefix); err == nil {
			t.Errorf("%s shows its own rows", c.peer)
		}
	}
	for _, file := range []string{"east.key"} {
		if st, err := os.Stat(filepath.Join(west.settings.MeshDir, file)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, st, err)
		}
	}

	left, err := Leave(t.Context(), east.client, east.settings, "west")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Left{"west", true, 1, true}, left); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if entries, err := os.ReadDir(east.settings.MeshDir); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	kvstoretest.Eventually(t, func() string {
		if read(west, "east", "cilium/state/nodes/v1/") == nil {
			return "west still reads east"
		}
		return ""
	})
	if _, err := Leave(t.Context(), west.client, west.settings, "east"); err != nil {
		t.Fatal(err)
	}
	if _, err := west.join(t, east.token(t, Order{For: "west"}), nil); err != nil {
		t.Fatal(err)
	}
	if p := east.wantState(t, "west", schema.PeerJoined); len(p.Issued) != 2 || !p.Issued[0].Revoked || p.Issued[1].Revoked {
		t.Errorf("certificates %+v", p.Issued)
	}
}

// TestJoin_Refused tries every reason. None of them uses the token up or leaves a peer, and the token
// is as good as before.
func TestJoin_Refused(t *testing.T) {
	t.Parallel()
	east, west := newCluster(t, "east", 1, "10.1.0.0/24"), newCluster(t, "west", 2, "10.2.0.0/24")
	b, err := schema.Peers().Encode("north", schema.Peer{
		State: schema.PeerJoined, Since: time.Now(), ID: 3, MaxClusters: 255, PodCIDRs: prefixes("10.3.0.0/16"), Root: "x",
	})
	must(t, err)
	east.Put(east.client, schema.PeersPrefix+"north", string(b))
	other, err := trust.Create(t.TempDir(), "west", nil)
	must(t, err)
	good := east.token(t, Order{For: "west"})
	const ours, theirs = false, true // who refuses
	for name, c := range map[string]struct {
		edit func(*Joiner, *Token)
		want string
		by   bool
	}{
		"other-joiner":        {func(_ *Joiner, tok *Token) { tok.Joiner = "south" }, "the token is for cluster south", ours},
		"expired":             {func(_ *Joiner, tok *Token) { tok.Expires = time.Now().Add(-time.Hour) }, "has expired", ours},
		"bound-id":            {func(_ *Joiner, tok *Token) { tok.JoinerID = 9 }, "for the id 9", ours},
		"secret":              {func(_ *Joiner, tok *Token) { tok.Secret[0]++ }, "the token is not good here", theirs},
		"token-id":            {func(_ *Joiner, tok *Token) { tok.ID[0]++ }, "the token is not good here", theirs},
		"other-server":        {func(_ *Joiner, tok *Token) { tok.Root[0]++ }, "not the one that was meant", ours},
		"other-name":          {func(_ *Joiner, tok *Token) { tok.Issuer = "eest" }, "certificate of the server", ours},
		"nobody-there":        {func(_ *Joiner, tok *Token) { tok.Endpoints = []string{"127.0.0.1:1"} }, "connection refused", ours},
		"mode":                {func(j *Joiner, _ *Token) { j.Settings.Mode = "native" }, "between nodes by vxlan", theirs},
		"mesh-size":           {func(j *Joiner, _ *Token) { j.Settings.MaxClusters = 511 }, "mesh of 255", theirs},
		"pod-cidrs":           {func(j *Joiner, _ *Token) { j.Settings.PodCIDRs = prefixes("10.1.0.0/16") }, "overlaps 10.1.0.0/24 of east", theirs},
		"pod-cidrs-of-north":  {func(j *Joiner, _ *Token) { j.Settings.PodCIDRs = prefixes("10.3.1.0/24") }, "overlaps 10.3.0.0/16 of cluster north", theirs},
		"unreachable":         {func(j *Joiner, _ *Token) { j.Settings.URLs = []string{"https://127.0.0.1:1"} }, "cannot be reached from here", theirs},
		"endpoint-of-another": {func(j *Joiner, _ *Token) { j.Settings.URLs = east.settings.URLs }, "cannot be reached from here", theirs},
		"same-root": {func(j *Joiner, _ *Token) {
			dir := j.Settings.MeshDir
			j.Settings, j.Settings.MeshDir, j.OneWay = east.settings, dir, true
			j.Settings.Cluster, j.Settings.ID = west.settings.Cluster, west.settings.ID
		}, "same root", theirs},
		"peer-ca-of-another": {func(j *Joiner, _ *Token) {
			j.Settings.PeerCAFile, j.Settings.PeerCAKeyFile = other.Files(trust.RolePeer)
		}, "does not lead to the root", ours},
		"no-peer-ca": {func(j *Joiner, _ *Token) { j.Settings.PeerCAFile = "" }, "peer-ca-cert is not set", ours},
		"id-unclear": {func(j *Joiner, _ *Token) { j.Settings.ID = 7 }, "7 in the settings and 2 in the store", ours},
	} {
		t.Run(name, func(t *testing.T) {
			tok := good
			tok.Endpoints = append([]string(nil), good.Endpoints...)
			j := Joiner{Client: west.client, Settings: west.settings}
			j.Settings.MeshDir = t.TempDir()
			c.edit(&j, &tok)
			_, err := j.Join(t.Context(), tok)
			var far *RefusedError
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q in it", err, c.want)
			}
			if errors.As(err, &far) != c.by {
				t.Errorf("refused by the other side: %v, want %v: %v", !c.by, c.by, err)
			}
		})
	}
	tokens, err := Tokens(t.Context(), east.client)
	must(t, err)
	if used := tokens[good.ID].UsedBy; used != "" {
		t.Errorf("the token was used by %s", used)
	}
	for _, c := range []*cluster{east, west} {
		peers, err := Peers(t.Context(), c.client)
		must(t, err)
		delete(peers, "north")
		if len(peers) > 0 {
			t.Errorf("%s has peers %v", c.settings.Cluster, peers)
		}
	}
	byHand := filepath.Join(east.settings.MeshDir, "west")
	must(t, os.MkdirAll(east.settings.MeshDir, 0o700))
	must(t, os.WriteFile(byHand, []byte("endpoints: [https://127.0.0.1:1]\n"), 0o600))
	if _, err := west.join(t, good, nil); err == nil || !strings.Contains(err.Error(), "has a client file of west already") {
		t.Errorf("over a file that somebody made: %v", err)
	}
	must(t, os.Remove(byHand))
	wantExpired(t, east, west)
	wantRefusedByTheJoiner(t, east, west, good)
	if _, err := west.join(t, good, nil); err == nil || !strings.Contains(err.Error(), "have joined already") {
		t.Errorf("a second time: %v", err)
	}
	if _, err := NewToken(t.Context(), east.client, east.settings, Order{For: "west", Life: time.Hour, Endpoints: []string{east.door}}); err == nil ||
		!strings.Contains(err.Error(), "has joined already") {
		t.Errorf("another token: %v", err)
	}
}

// wantExpired lets the issuer's clock decide that a token has expired.
func wantExpired(t *testing.T, east, west *cluster) {
	t.Helper()
	tok := east.token(t, Order{For: "west"}) // the door is open for another one
	tokens, err := Tokens(t.Context(), east.client)
	must(t, err)
	row := tokens[tok.ID]
	row.Expires = time.Now().Add(-time.Minute)
	b, err := schema.Tokens().Encode(tok.ID, row)
	must(t, err)
	east.Put(east.client, schema.TokensPrefix+tok.ID.String(), string(b))
	if TokenState(row) != "expired" {
		t.Errorf("it is called %s", TokenState(row))
	}
	_, err = west.join(t, tok, nil)
	var far *RefusedError
	if !errors.As(err, &far) || !strings.Contains(err.Error(), "has expired") {
		t.Errorf("got %v", err)
	}
}

// wantRefusedByTheJoiner has the joiner know what the issuer does not: it stops after the issuer has
// admitted it, and when it has put that right the same token ends what was begun.
func wantRefusedByTheJoiner(t *testing.T, east, west *cluster, tok Token) {
	t.Helper()
	north := schema.Peer{State: schema.PeerJoined, Since: time.Now(), ID: 3, MaxClusters: 255, PodCIDRs: prefixes("10.1.0.0/16"), Root: "x"}
	put := func(p schema.Peer) {
		b, err := schema.Peers().Encode("north", p)
		must(t, err)
		west.Put(west.client, schema.PeersPrefix+"north", string(b))
	}
	put(north)
	_, err := west.join(t, tok, nil)
	var far *RefusedError
	if err == nil || errors.As(err, &far) || !strings.Contains(err.Error(), "overlaps 10.1.0.0/16 of cluster north, which west knows") {
		t.Fatalf("got %v", err)
	}
	east.wantState(t, "west", schema.PeerPending)
	if peers, err := Peers(t.Context(), west.client); err != nil || len(peers) != 1 {
		t.Errorf("west has peers %v, %v", peers, err)
	}
	north.PodCIDRs = prefixes("10.3.0.0/16")
	put(north)
	if _, err := west.join(t, tok, nil); err != nil {
		t.Fatal(err)
	}
	east.wantState(t, "west", schema.PeerJoined)
}

// TestJoin_Approve has a joiner wait, with the same words on both sides, until somebody has said no,
// and another time yes.
func TestJoin_Approve(t *testing.T) {
	t.Parallel()
	east, west := newCluster(t, "east", 1, "10.1.0.0/24"), newCluster(t, "west", 2, "10.2.0.0/24")
	east.token(t, Order{For: "south"}) // keeps the door open
	no := east.token(t, Order{For: "west", Approve: true})
	_, err := west.join(t, no, func(j *Joiner) {
		j.Waiting = func(string) {
			if _, err := Leave(t.Context(), east.client, east.settings, "west"); err != nil {
				t.Error(err)
			}
		}
	})
	if err == nil || !strings.Contains(err.Error(), "was not approved") {
		t.Errorf("got %v", err)
	}
	if _, err := west.join(t, no, nil); err == nil || !strings.Contains(err.Error(), "has left since") {
		t.Errorf("again: %v", err)
	}

	tok := east.token(t, Order{For: "west", Approve: true})
	words, done := make(chan string, 1), make(chan error, 1)
	var joined Joined
	go func() {
		var err error
		joined, err = west.join(t, tok, func(j *Joiner) { j.Waiting = func(code string) { words <- code } })
		done <- err
	}()
	shown := <-words
	p := east.wantState(t, "west", schema.PeerWaiting)
	if len(p.Issued) > 0 {
		t.Errorf("it has certificates: %+v", p.Issued)
	}
	peers, err := Peers(t.Context(), west.client)
	if err != nil || len(peers) > 0 {
		t.Errorf("west has peers %v, %v", peers, err)
	}
	if _, err := Approve(t.Context(), east.client, "west"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if joined.Code != shown {
		t.Errorf("shown were %q, then %q", shown, joined.Code)
	}
	east.wantState(t, "west", schema.PeerJoined)
	if _, err := Approve(t.Context(), east.client, "west"); err == nil || !strings.Contains(err.Error(), "does not wait") {
		t.Errorf("again: %v", err)
	}
	if _, err := Approve(t.Context(), east.client, "south"); !errors.Is(err, ErrNoPeer) {
		t.Errorf("of nobody: %v", err)
	}
}

// TestJoin_Pending joins a cluster whose operator does not run: the peering is pending on the side that
// misses it, and complete as soon as it comes. Then both leave, and west, whom nobody can reach any
// more, joins one way.
func TestJoin_Pending(t *testing.T) {
	t.Parallel()
	east, west := newCluster(t, "east", 1, "10.1.0.0/24"), newCluster(t, "west", 2, "10.2.0.0/24")
	east.Delete(east.client, schema.HeartbeatKey)
	got, err := west.join(t, east.token(t, Order{For: "west"}), func(j *Joiner) { j.See = 0 })
	must(t, err)
	if got.Seen == "" || got.SeenThere != "" {
		t.Errorf("got %+v", got)
	}
	east.wantState(t, "west", schema.PeerJoined)
	p := west.wantState(t, "east", schema.PeerPending)
	p.Since = p.Since.Add(-time.Hour)
	if s := PeerState(p); s != "half-joined" {
		t.Errorf("after an hour it is called %s", s)
	}
	east.beat(t)
	west.wantState(t, "east", schema.PeerJoined)

	_, err = Leave(t.Context(), east.client, east.settings, "west")
	must(t, err)
	_, err = Leave(t.Context(), west.client, west.settings, "east")
	must(t, err)
	_, err = west.join(t, east.token(t, Order{For: "west"}), func(j *Joiner) {
		j.OneWay, j.Settings.URLs = true, []string{"https://127.0.0.1:1"}
	})
	must(t, err)
	if p := east.wantState(t, "west", schema.PeerJoined); !p.OneWay || len(p.Issued) != 2 {
		t.Errorf("east has %+v", p)
	}
	if p := west.wantState(t, "east", schema.PeerJoined); !p.OneWay || len(p.Issued) != 1 {
		t.Errorf("west has %+v", p)
	}
	if _, err := os.Stat(filepath.Join(east.settings.MeshDir, "west")); err == nil {
		t.Error("east has a client file of west")
	}
}
