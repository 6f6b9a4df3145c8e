// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestFiles_Examine judges files as people mix them up.
func TestFiles_Examine(t *testing.T) {
	d, west := newDir(t), must(Create(filepath.Join(t.TempDir(), "ca"), "west", nil))(t)
	server, user, _ := issue(t, d)
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	read := func(file string) string { return string(must(os.ReadFile(file))(t)) }
	_, rootKey := d.Files(RoleRoot)
	for _, tt := range []struct {
		name   string
		files  Files
		text   string
		causes []Cause
	}{
		{"server", Files{CA: d.CAFile(), Cert: server, Key: KeyFileOf(server), Usage: x509.ExtKeyUsageServerAuth, Host: "192.0.2.1"}, `server "east-1" is good until`, nil},
		{"user-at-etcd", Files{CA: d.StoreCAFile(), Cert: user, Key: KeyFileOf(user), Usage: x509.ExtKeyUsageClientAuth}, `client "node-a1" is good until`, nil},
		{"no-ca", Files{Cert: user, Key: KeyFileOf(user), Usage: x509.ExtKeyUsageClientAuth}, "name a file with --ca", nil},
		{"no-ca-wrong-use", Files{Cert: user, Usage: x509.ExtKeyUsageServerAuth}, "is for a client", []Cause{CauseUsage}},
		{"foreign-key", Files{CA: d.CAFile(), Cert: user, Key: rootKey, Usage: x509.ExtKeyUsageClientAuth}, `is not the key of "node-a1"`, []Cause{CauseKey}},
		{"foreign-ca", Files{CA: west.CAFile(), Cert: user, Usage: x509.ExtKeyUsageClientAuth}, "which is unknown here", []Cause{CauseCA}},
		{"open-key", Files{CA: d.CAFile(), Cert: user, Key: write("open.key", read(KeyFileOf(user)), 0o640), Usage: x509.ExtKeyUsageClientAuth}, "has mode 0640", []Cause{CauseMode}},
		{"no-key", Files{CA: d.CAFile(), Cert: user, Key: filepath.Join(dir, "none.key"), Usage: x509.ExtKeyUsageClientAuth}, "no such file", []Cause{CauseFile}},
		{"key-is-a-certificate", Files{CA: d.CAFile(), Cert: user, Key: user, Usage: x509.ExtKeyUsageClientAuth}, "holds no private key", []Cause{CauseFile}},
		{"encrypted-key", Files{CA: d.CAFile(), Cert: user, Key: write("enc.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", 0o600), Usage: x509.ExtKeyUsageClientAuth}, "it is encrypted", []Cause{CauseFile}},
		{"half-a-certificate", Files{CA: d.CAFile(), Cert: write("half.crt", read(user)[:200], 0o600), Usage: x509.ExtKeyUsageClientAuth}, "holds no certificate", []Cause{CauseFile}},
		{"no-certificate", Files{CA: d.CAFile(), Cert: filepath.Join(dir, "none.crt"), Usage: x509.ExtKeyUsageClientAuth}, "no such file", []Cause{CauseFile}},
		{"ca-missing", Files{CA: filepath.Join(dir, "none.ca"), Cert: user, Usage: x509.ExtKeyUsageClientAuth}, "no such file", []Cause{CauseFile}},
		{"ca-is-a-leaf", Files{CA: user}, "is no authority", []Cause{CauseUsage}},
		{"merged", Files{CA: write("merged.crt", read(d.CAFile())+read(west.CAFile()), 0o600)}, "each may speak for the others", []Cause{CauseMerged}},
	} {
		t.Run(tt.name, func(t *testing.T) { wantSaid(t, tt.files.Examine(), tt.text, tt.causes...) })
	}
	client := write("west", "endpoints: [\"https://192.0.2.1:32379\"]\ntrusted-ca-file: "+west.CAFile()+"\ncert-file: "+user+"\nkey-file: "+KeyFileOf(user)+"\n", 0o600)
	wantSaid(t, ExamineClientFile(t.Context(), client, false), "good only if the other side trusts another CA", CauseCA)
	plain := write("plain", "endpoints: [\"http://192.0.2.1:2379\"]\n", 0o600)
	wantSaid(t, ExamineClientFile(t.Context(), plain, false), "is not encrypted", CauseNoTLS)
	broken := write("broken", "endpoint: x\n", 0o600)
	wantSaid(t, ExamineClientFile(t.Context(), broken, false), "endpoint", CauseFile)
}

// TestDir_Examine looks at a directory in the course of its life.
func TestDir_Examine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDir(t)
		server, _, _ := issue(t, d)
		wantSaid(t, d.Examine(), "peer CA is good until", CauseRootKey)
		_, rootKey := d.Files(RoleRoot)
		away := filepath.Join(t.TempDir(), "root.key")
		if err := os.Rename(rootKey, away); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(KeyFileOf(server)); err != nil { // as for a request: the key never was here
			t.Fatal(err)
		}
		wantSaid(t, d.Examine(), `client "remote-west" is good until`)

		time.Sleep(ServerLife - time.Hour)
		wantSaid(t, d.Examine(), "less than a third", CauseEnding)
		d.RootKey = away
		if err := d.Begin(true); err != nil {
			t.Fatal(err)
		}
		wantSaid(t, d.Examine(), "do not sign yet", CauseRotation, CauseEnding)
		if err := d.Switch(); err != nil {
			t.Fatal(err)
		}
		wantSaid(t, d.Examine(), "are still trusted", CauseRotation, CauseEnding, CauseRotation, CauseRotation, CauseRotation)
		if _, errs := d.RenewAll(RenewOptions{}); len(errs) > 0 {
			t.Fatal(errs)
		}
		if err := d.Finish(false); err != nil {
			t.Fatal(err)
		}
		wantSaid(t, d.Examine(), "cluster CA is good until")

		if err := WriteCertificates(d.CAFile(), must(d.certs(currentDir, RoleCluster))(t)); err != nil {
			t.Fatal(err)
		}
		wantSaid(t, d.Examine(), "does not hold the authorities that are here", CauseRotation, CauseCA)
		if err := d.writeBundles(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(IntermediateLife - ServerLife)
		wantSaid(t, d.Examine(), "cluster CA ends on", CauseEnding, CauseEnding, CauseExpired, CauseExpired, CauseExpired)
		time.Sleep(2 * ServerLife)
		found := d.Examine()
		if _, has := said(found, `it ("weft east peer CA") has expired`); !has {
			t.Errorf("got %+v", found)
		}
	})
}
