// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// The file of a view:
//
//	file  = magic, sized header (JSON), sized key (mvccpb.KeyValue)..., SHA-256 of all before it
//	sized = uvarint length, bytes
//
// A view is only kept while it cannot be had from the etcd, so a version that knows another magic begins
// without it.
const (
	viewMagic = "weft view 1\n"
	// maxView bounds a file, in bytes: more than the largest etcd should have.
	maxView = 1 << 30
	// maxRow bounds a key with its value, in bytes: etcd takes requests of 1.5 MiB.
	maxRow = 64 << 20
)

// viewHeader is what is kept of a generation beside its keys.
type viewHeader struct {
	Cluster  string    `json:"cluster"`
	Prefix   string    `json:"prefix"`
	At       time.Time `json:"at"`
	Upstream uint64    `json:"upstream"` // the etcd's own cluster id
	Epoch    string    `json:"epoch,omitempty"`
	Revision int64     `json:"revision"`
	Keys     int       `json:"keys"`
	// The witness.
	Key     string `json:"key,omitempty"`
	Mod     int64  `json:"mod,omitempty"`
	Hash    uint64 `json:"hash,omitempty"`
	Deleted bool   `json:"deleted,omitempty"`
	// Holding is since when the store is lost and nothing took its place; zero: something did. Waited is
	// how long of that the etcd answered.
	Holding time.Time     `json:"holding,omitzero"`
	Waited  time.Duration `json:"waited,omitempty"`
	Held    *heldHeader   `json:"held,omitempty"` // nil: nothing is
}

// heldHeader is what is kept of a held, whose rows stand among the keys.
type heldHeader struct {
	Epoch  string              `json:"epoch"`
	Base   int64               `json:"base"`
	Owners map[string][]string `json:"owners"` // their keys
	Nodes  []string            `json:"nodes"`
	Since  time.Time           `json:"since"`
	Ready  time.Time           `json:"ready"`
	Waited time.Duration       `json:"waited"`
	// Went: some went at the very revision, of which the etcd tells another history then.
	Went bool `json:"went,omitempty"`
}

var (
	errNoView    = errors.New("it is no view, or one of another version")
	errTornView  = errors.New("it is not as it was written")
	errLargeView = fmt.Errorf("more than %d bytes", maxView)
)

// writeView replaces the file at path by one with a view; each calls its argument for every key in order.
// The rename is the commit point.
func writeView(path string, h viewHeader, each func(func(*mvccpb.KeyValue))) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temporary := path + ".new" // one name for all attempts: a crash leaves at most one
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(temporary)
		}
	}()
	err = encodeView(f, h, each)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", temporary, err)
	}
	return os.Rename(temporary, path)
}

// encodeView writes the bytes of a file.
func encodeView(to io.Writer, h viewHeader, each func(func(*mvccpb.KeyValue))) error {
	out, sum := bufio.NewWriterSize(to, 1<<16), sha256.New()
	var (
		buf  []byte
		size int64
		err  error
	)
	write := func(b []byte) {
		if size += int64(len(b)); err == nil && size > maxView-sha256.Size {
			err = errLargeView
		}
		if err == nil {
			sum.Write(b)
			_, err = out.Write(b)
		}
	}
	head, herr := json.Marshal(h)
	if herr != nil {
		return herr
	}
	write(binary.AppendUvarint([]byte(viewMagic), uint64(len(head))))
	write(head)
	each(func(kv *mvccpb.KeyValue) {
		if err != nil {
			return
		}
		buf = binary.AppendUvarint(buf[:0], uint64(proto.Size(kv)))
		if buf, err = (proto.MarshalOptions{}).MarshalAppend(buf, kv); err == nil {
			write(buf)
		}
	})
	if err == nil {
		_, err = out.Write(sum.Sum(nil))
	}
	if err == nil {
		err = out.Flush()
	}
	return err
}

// readView reads a file.
func readView(path string) (viewHeader, []*mvccpb.KeyValue, error) {
	f, err := os.Open(path)
	if err != nil {
		return viewHeader{}, nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxView+1))
	if err == nil && len(b) > maxView {
		err = errLargeView
	}
	if err != nil {
		return viewHeader{}, nil, fmt.Errorf("read %s: %w", path, err)
	}
	h, kvs, err := decodeView(b)
	if err != nil {
		return viewHeader{}, nil, fmt.Errorf("read %s: %w", path, err)
	}
	return h, kvs, nil
}

// decodeView is the inverse of encodeView.
func decodeView(b []byte) (h viewHeader, kvs []*mvccpb.KeyValue, err error) {
	body, ok := bytes.CutPrefix(b, []byte(viewMagic))
	if !ok || len(body) < sha256.Size {
		return viewHeader{}, nil, errNoView
	}
	end := len(b) - sha256.Size
	if sum := sha256.Sum256(b[:end]); !bytes.Equal(sum[:], b[end:]) {
		return viewHeader{}, nil, errTornView
	}
	body = body[:len(body)-sha256.Size]
	next := func() []byte {
		n, l := binary.Uvarint(body)
		if l <= 0 || n > maxRow || n > uint64(len(body)-l) {
			err = errTornView
			return nil
		}
		part := body[l : l+int(n)]
		body = body[l+int(n):]
		return part
	}
	head := next()
	if err == nil && json.Unmarshal(head, &h) != nil {
		err = errTornView
	}
	last := ""
	for err == nil && len(body) > 0 {
		kv := &mvccpb.KeyValue{}
		row := next()
		if err == nil && proto.Unmarshal(row, kv) != nil {
			err = errTornView
		}
		// As a store has them: in order, existing, and not of the future.
		if key := string(kv.Key); err == nil && (key <= last || kv.CreateRevision <= 0 || kv.ModRevision < kv.CreateRevision || kv.ModRevision > h.Revision) {
			err = errTornView
		}
		last = string(kv.Key)
		kvs = append(kvs, kv)
	}
	if err == nil && (h.Revision <= 0 || len(kvs) != h.Keys) {
		err = errTornView
	}
	if err != nil {
		return viewHeader{}, nil, err
	}
	return h, kvs, nil
}
