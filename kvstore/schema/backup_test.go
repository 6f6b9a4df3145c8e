// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import "testing"

func TestGolden_Backup(t *testing.T) {
	want := readGolden(t, "backup/backup.json")
	b, err := DecodeBackup(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := EncodeBackup(b)
	if err != nil || string(got) != string(want) {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

func FuzzBackup(f *testing.F) {
	f.Add(readGolden(f, "backup/backup.json"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := DecodeBackup(data)
		if err != nil {
			mustBeInvalid(t, err)
			return
		}
		out, err := EncodeBackup(b)
		if err != nil {
			return // a year that RFC 3339 has no digits for
		}
		if again, err := DecodeBackup(out); err != nil || again != b {
			t.Fatalf("got %+v, %v, want %+v", again, err, b)
		}
	})
}
