// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var header = Header{Cluster: "a", ClusterID: 3, At: time.Unix(1_700_000_000, 5)}

func fill(w *Writer) {
	w.Table("nodes")
	w.Row(Row{Key: "a/n1", Origin: 7, Value: []byte("one")})
	w.Row(Row{Key: "a/n2", Origin: -1, Value: []byte{}})
	w.Table("ips")
}

func encoded(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := Encode(&b, header, fill)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("encode: %d bytes of %d, %v", n, b.Len(), err)
	}
	return b.Bytes()
}

// sealed gives bytes the checksum they should have.
func sealed(b []byte) []byte {
	sum := sha256.Sum256(b)
	return append(bytes.Clone(b), sum[:]...)
}

func TestFile_ComesBackAsItWas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint", "a")
	for range 2 { // the second replaces the first
		if _, err := Write(path, header, fill); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read(path, "a")
	if err != nil {
		t.Fatal(err)
	}
	want := &File{Header: header, Tables: map[string][]Row{
		"nodes": {{Key: "a/n1", Origin: 7, Value: []byte("one")}, {Key: "a/n2", Origin: -1, Value: []byte{}}}, "ips": nil,
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got.Rows() != 2 {
		t.Errorf("%d rows", got.Rows())
	}
	list, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(list) != 1 {
		t.Errorf("directory: %v %v", list, err)
	}
}

func TestDecode_RefusesWithAReason(t *testing.T) {
	good := encoded(t)
	body := good[:len(good)-sha256.Size]
	later := bytes.Clone(body)
	binary.BigEndian.PutUint16(later[len(magic):], Version+1)
	flipped := bytes.Clone(good)
	flipped[len(magic)+8] ^= 1
	for _, tt := range []struct {
		name string
		b    []byte
		want error
	}{
		{"empty", nil, ErrForeign},
		{"other-file", []byte("{\"some\": \"other file, long enough to have a checksum at its end\"}"), ErrForeign},
		{"cut", good[:len(good)-1], ErrDamaged},
		{"only-magic", []byte(magic), ErrDamaged},
		{"flipped", flipped, ErrDamaged},
		{"later", sealed(later), ErrVersion},
		{"later-without-checksum", later, ErrVersion},
		{"no-end", sealed(body[:len(body)-1]), ErrDamaged},
		{"more-behind", sealed(append(bytes.Clone(body), 1)), ErrDamaged},
		{"row-without-table", sealed(append(bytes.Clone(body[:len(magic)+2]), 0, 0, 0, itemRow, 0, 0, 0, itemEnd)), ErrDamaged},
		{"table-twice", sealed(append(bytes.Clone(body[:len(magic)+2]), 0, 0, 0, itemTable, 0, itemTable, 0, itemEnd)), ErrDamaged},
		{"long-text", sealed(append(bytes.Clone(body[:len(magic)+2]), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)), ErrDamaged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if f, err := Decode(tt.b); !errors.Is(err, tt.want) || !Refused(err) {
				t.Errorf("got %v, %v; want %v", f, err, tt.want)
			}
		})
	}
}

func TestRead_OfAnotherStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b")
	if _, err := Read(path, "b"); !errors.Is(err, fs.ErrNotExist) || Refused(err) {
		t.Errorf("missing: %v", err)
	}
	if _, err := Write(path, header, fill); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path, "b"); !errors.Is(err, ErrForeign) {
		t.Errorf("of a: %v", err)
	}
	to, err := Aside(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Read(to, "a"); err != nil {
		t.Errorf("put aside: %v", err)
	}
}

func TestWrite_FailureLeavesTheOld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if _, err := Write(path, header, fill); err != nil {
		t.Fatal(err)
	}
	_, err := Write(path, header, func(w *Writer) { w.err = ErrTooLarge })
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	if _, err := Read(path, "a"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + temporary); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a file is left: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	good := encoded(f)
	f.Add(good[:len(good)-sha256.Size])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, sealed(b)} { // without the checksum's help, too
			file, err := Decode(b)
			if err != nil {
				if !Refused(err) {
					t.Errorf("error of no kind: %v", err)
				}
				continue
			}
			var again bytes.Buffer
			if _, err := Encode(&again, file.Header, func(w *Writer) {
				for name, rows := range file.Tables {
					w.Table(name)
					for _, r := range rows {
						w.Row(r)
					}
				}
			}); err != nil {
				t.Fatal(err)
			}
			back, err := Decode(again.Bytes())
			if err != nil || cmp.Diff(file, back) != "" {
				t.Errorf("%v came back as %v, %v", file, back, err)
			}
		}
	})
}
