// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func newDir(t testing.TB) *Dir {
	t.Helper()
	return must(Create(filepath.Join(t.TempDir(), "ca"), "east", nil))(t)
}

// issue signs a server, a user and a peer into Issued.
func issue(t testing.TB, d *Dir) (server, user, peer string) {
	t.Helper()
	sign := func(name string, role Role, sign func(*Authority, crypto.PublicKey) (Chain, error)) string {
		a := must(d.Authority(role))(t)
		certFile, keyFile, chain, err := Issue(d.Issued(), name, func(pub crypto.PublicKey) (Chain, error) { return sign(a, pub) })
		if err != nil {
			t.Fatal(err)
		}
		pair := must(ReadPair(certFile, keyFile))(t)
		if !pair.Leaf.Equal(chain[0]) {
			t.Errorf("%s is not what was signed", certFile)
		}
		return certFile
	}
	return sign("east-1", RoleCluster, func(a *Authority, pub crypto.PublicKey) (Chain, error) {
			return a.SignServer(pub, Server{Name: "east-1", Cluster: "east", Hosts: []string{"192.0.2.1"}}, ServerLife)
		}), sign("node-a1", RoleCluster, func(a *Authority, pub crypto.PublicKey) (Chain, error) {
			return a.SignUser(pub, "node-a1", UserLife)
		}), sign("remote-west", RolePeer, func(a *Authority, pub crypto.PublicKey) (Chain, error) {
			return a.SignUser(pub, "remote-west", PeerLife)
		})
}

func TestCreate_Files(t *testing.T) {
	d := newDir(t)
	issue(t, d)
	if cluster := must(d.Cluster())(t); cluster != "east" || d.Rotation() != Settled {
		t.Errorf("cluster %q, rotation %s", cluster, d.Rotation())
	}
	modes := map[string]fs.FileMode{}
	if err := filepath.WalkDir(d.path, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		name, _ := filepath.Rel(d.path, path)
		modes[name] = info.Mode().Perm()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	want := map[string]fs.FileMode{
		".": 0o700, ".lock": 0o600, "current": 0o700, "issued": 0o700, "ca.crt": 0o644, "store-ca.crt": 0o644,
		"current/root.crt": 0o644, "current/root.key": 0o600, "current/cluster.crt": 0o644, "current/cluster.key": 0o600,
		"current/peer.crt": 0o644, "current/peer.key": 0o600, "issued/east-1.crt": 0o644, "issued/east-1.key": 0o600,
		"issued/node-a1.crt": 0o644, "issued/node-a1.key": 0o600, "issued/remote-west.crt": 0o644, "issued/remote-west.key": 0o600,
	}
	if diff := cmp.Diff(want, modes); diff != "" {
		t.Error(diff)
	}
	_, err := Create(d.path, "east", nil)
	wantError(t, err, "nothing is replaced")
	_, _, _, err = Issue(d.Issued(), "east-1", nil)
	wantError(t, err, "is there already")
	_, err = Open(filepath.Join(d.path, "nothing"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestCreate_OfflineRoot works without the root's key, and with a root that others made.
func TestCreate_OfflineRoot(t *testing.T) {
	root := must(NewRoot("company", RootLife))(t)
	d := must(Create(filepath.Join(t.TempDir(), "ca"), "east", root))(t)
	if _, err := os.Stat(filepath.Join(d.path, "current", "root.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the key of somebody's root was copied: %v", err)
	}
	issue(t, d)
	wantError(t, d.Begin(true), "--root-key")
	if d.Rotation() != Settled {
		t.Errorf("rotation %s after an error", d.Rotation())
	}
	d.RootKey = filepath.Join(t.TempDir(), "root.key")
	if err := WriteKey(d.RootKey, newKey(t)); err != nil {
		t.Fatal(err)
	}
	wantError(t, d.Begin(true), "does not fit")
	if err := WriteKey(d.RootKey, root.key); err != nil {
		t.Fatal(err)
	}
	wantError(t, d.Begin(true), "")
	wantError(t, d.Switch(), "")
	if roots := must(ReadCertificates(d.CAFile()))(t); len(roots) != 1 || !roots[0].Equal(root.Cert) {
		t.Errorf("%d roots where one was kept", len(roots))
	}
	if cas := must(ReadCertificates(d.StoreCAFile()))(t); len(cas) != 2 {
		t.Errorf("%d cluster CAs in the middle of a rotation", len(cas))
	}
}

// TestRotation_Overlaps goes through a rotation, and at each step lets those who have the files of this
// step meet those who still have the files of the step before.
func TestRotation_Overlaps(t *testing.T) {
	for _, keepRoot := range []bool{false, true} {
		d := newDir(t)
		server, user, peer := issue(t, d)
		type files struct{ ca, store, server, user, peer []*x509.Certificate }
		read := func() files {
			f := func(file string) []*x509.Certificate { return must(ReadCertificates(file))(t) }
			return files{f(d.CAFile()), f(d.StoreCAFile()), f(server), f(user), f(peer)}
		}
		meet := func(step string, trusts, shows files) {
			t.Helper()
			for what, err := range map[string]error{
				"server":      verify(shows.server, trusts.ca, x509.ExtKeyUsageServerAuth, MeshName("east")),
				"peer":        verify(shows.peer, trusts.ca, x509.ExtKeyUsageClientAuth, ""),
				"user":        verify(shows.user, trusts.ca, x509.ExtKeyUsageClientAuth, ""),
				"user at etc": verify(shows.user, trusts.store, x509.ExtKeyUsageClientAuth, ""),
			} {
				if err != nil {
					t.Errorf("keep root %v, %s: %s: %v", keepRoot, step, what, err)
				}
			}
			if verify(shows.peer, trusts.store, x509.ExtKeyUsageClientAuth, "") == nil {
				t.Errorf("keep root %v, %s: a peer is a user of the etcd", keepRoot, step)
			}
		}
		before := read()
		step := func(name string, do func() error) {
			t.Helper()
			for range 2 { // the second time as after a crash
				if err := do(); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			now := read()
			meet(name, now, now)
			meet(name+", files not there yet", before, now)
			meet(name+", certificates not there yet", now, before)
			before = now
		}
		step("begin", func() error { return d.Begin(keepRoot) })
		step("switch", d.Switch)
		var old *OldError
		if err := d.Finish(false); !errors.As(err, &old) || len(old.Files) != 3 {
			t.Errorf("finish while old certificates are in use: %v", err)
		}
		wantError(t, d.Begin(keepRoot), "is not finished")
		step("renew", func() error {
			all, errs := d.RenewAll(RenewOptions{})
			if len(all) != 3 {
				t.Errorf("%d looked at", len(all))
			}
			return errors.Join(errs...)
		})
		first := read()
		if err := d.Finish(false); err != nil {
			t.Fatal(err)
		}
		last := read()
		meet("finish", last, first)
		if len(last.ca) != 1 || len(last.store) != 1 || d.Rotation() != Settled {
			t.Errorf("%d roots, %d cluster CAs, %s", len(last.ca), len(last.store), d.Rotation())
		}
		wantError(t, d.Finish(false), "nothing to finish")
		wantError(t, d.Switch(), "no rotation has begun")
		wantError(t, d.Abort(), "nothing to abort")
	}
}

// TestRotation_Crashes cuts a rotation off between its steps on disk.
func TestRotation_Crashes(t *testing.T) {
	d := newDir(t)
	issue(t, d)
	was := must(d.Authority(RoleCluster))(t)
	for _, left := range []string{".new-1", ".gone-next"} {
		if err := os.Mkdir(d.file(left), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Begin(false); err != nil {
		t.Fatal(err)
	}
	if err := d.Abort(); err != nil || d.Rotation() != Settled || len(must(ReadCertificates(d.CAFile()))(t)) != 1 {
		t.Fatalf("abort: %v, %s", err, d.Rotation())
	}
	if err := d.Begin(false); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(d.file(currentDir), d.file(oldDir)); err != nil {
		t.Fatal(err)
	}
	d = must(Open(d.path))(t)
	if now := must(d.Authority(RoleCluster))(t); d.Rotation() != Switched || now.Cert.Equal(was.Cert) {
		t.Errorf("%s, signs with %v", d.Rotation(), now.Cert.SerialNumber)
	}
	for _, left := range []string{".new-1", ".gone-next"} {
		if d.has(left) {
			t.Errorf("%s was left", left)
		}
	}
	if err := d.Finish(true); err != nil { // whatever old certificates there are
		t.Fatal(err)
	}
}

// TestRenew_KeepsTheKey renews when it is time, and changes nothing but dates.
func TestRenew_KeepsTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDir(t)
		server, _, _ := issue(t, d)
		before := must(ReadCertificates(server))(t)[0]
		r := must(d.Renew(server, RenewOptions{}))(t)
		if r.Why != "" || !r.Until.Equal(before.NotAfter) {
			t.Errorf("renewed at once: %+v", r)
		}
		time.Sleep(ServerLife*2/3 + time.Hour)
		all, errs := d.RenewAll(RenewOptions{})
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		why := map[string]string{}
		for _, r := range all {
			why[r.Name] = r.Why
		}
		if diff := cmp.Diff(map[string]string{"east-1": "less than a third of its life is left", "node-a1": "", "remote-west": ""}, why); diff != "" {
			t.Error(diff)
		}
		pair := must(ReadPair(server, KeyFileOf(server)))(t)
		after := pair.Leaf
		type facts struct {
			Name  string
			Hosts []string
			Usage []x509.ExtKeyUsage
			Left  time.Duration
		}
		of := func(c *x509.Certificate, issued time.Time) facts {
			return facts{c.Subject.CommonName, append([]string{c.IPAddresses[0].String()}, c.DNSNames...), c.ExtKeyUsage, c.NotAfter.Sub(issued)}
		}
		if diff := cmp.Diff(of(before, before.NotBefore.Add(time.Hour)), of(after, time.Now())); diff != "" {
			t.Error(diff)
		}
		if !samePublicKey(before.PublicKey, after.PublicKey) {
			t.Error("another key")
		}
		r = must(d.Renew(server, RenewOptions{NewKey: true, Now: true, Life: time.Hour}))(t)
		pair = must(ReadPair(server, KeyFileOf(server)))(t)
		if samePublicKey(pair.Leaf.PublicKey, after.PublicKey) || !r.Until.Equal(time.Now().Add(time.Hour)) {
			t.Errorf("asked for a new key and an hour: %+v", r)
		}
		other := newDir(t)
		_, err := other.Renew(server, RenewOptions{})
		wantError(t, err, "which is no authority of")
	})
}

// TestRenew_AfterTheAuthority does not keep a life that was cut short.
func TestRenew_AfterTheAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDir(t)
		time.Sleep(IntermediateLife - 24*time.Hour)
		a := must(d.Authority(RoleCluster))(t)
		file, _, chain, err := Issue(d.Issued(), "node-a1", func(pub crypto.PublicKey) (Chain, error) { return a.SignUser(pub, "node-a1", UserLife) })
		if err != nil || !chain[0].NotAfter.Equal(a.Cert.NotAfter) {
			t.Fatalf("%v, %v", chain, err)
		}
		for _, step := range []func() error{func() error { return d.Begin(true) }, d.Switch} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		if r := must(d.Renew(file, RenewOptions{}))(t); r.Why == "" || !r.Until.Equal(time.Now().Add(UserLife)) {
			t.Errorf("got %+v", r)
		}
	})
}

// TestDir_OneAtATime lets several processes do the same at once.
func TestDir_OneAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca")
	atOnce := func(do func() error) (errs []error) {
		t.Helper()
		done := make(chan error)
		for range 4 {
			go func() { done <- do() }()
		}
		for range 4 {
			if err := <-done; err != nil {
				errs = append(errs, err)
			}
		}
		return errs
	}
	if errs := atOnce(func() error { return second(Create(path, "east", nil)) }); len(errs) != 3 {
		t.Fatalf("of four that create one succeeds: %v", errs)
	}
	for _, step := range []func(*Dir) error{func(d *Dir) error { return d.Begin(false) }, (*Dir).Switch} {
		if errs := atOnce(func() error {
			d, err := Open(path)
			if err != nil {
				return err
			}
			return step(d)
		}); len(errs) > 0 {
			t.Fatal(errs)
		}
	}
	d := must(Open(path))(t)
	if roots := must(ReadCertificates(d.CAFile()))(t); len(roots) != 2 || d.Rotation() != Switched {
		t.Errorf("%d roots, %s", len(roots), d.Rotation())
	}
	wantSaid(t, d.Examine(), "are still trusted", CauseRotation, CauseRootKey)
}
