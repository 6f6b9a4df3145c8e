// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"strings"
	"time"
)

// MirrorOwner is the name of the owner of copies: the mirror says of them in its row what a node says of
// its rows. No node can have it.
const MirrorOwner = "@mirror"

// Mirror is what the mirror says of its copy of one remote cluster. All times are by the mirror's
// clock: a reader takes differences of them and adds the time since the row arrived. It is comparable.
//
// Epoch, Rows and Complete are the members of an Owner: of the copy, the mirror is the owner.
type Mirror struct {
	// ID is the remote's cluster id, 0 while it is not known.
	ID uint32
	// Connected: the remote's store is being followed.
	Connected bool
	// Holding: what the remote's store lacks is held, so the copy stands still.
	Holding bool
	// Reason says why it is not connected, or what is wrong with it.
	Reason string
	// Confirmed is when the copy was last known to be what the remote has; zero: never.
	Confirmed time.Time
	// Heartbeat is when the remote's last sign of life arrived; zero: none did.
	Heartbeat time.Time
	// Written is when this was said.
	Written time.Time
	// By is which mirror said it.
	By string
	// Removed is when the remote was first found to have no client file any more; zero: it has one.
	Removed time.Time
	// Epoch is the ID of the epoch of the store that has the copy, "" where that has none.
	Epoch string
	// Rows is how many rows the copy has.
	Rows int
	// Complete: all that the remote has is in the copy, and nothing else is.
	Complete bool
	// OurCertificate is until when the certificate is good by which the mirror reads the remote, and
	// ServerCertificate that of the remote's server as it was shown last; zero: not known. These are not
	// by the mirror's clock.
	OurCertificate, ServerCertificate time.Time
	Extra                             Extra
}

type wireMirror struct {
	ID        uint32    `json:"id,omitempty"`
	Connected bool      `json:"connected"`
	Holding   bool      `json:"holding,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Confirmed time.Time `json:"confirmed,omitzero"`
	Heartbeat time.Time `json:"heartbeat,omitzero"`
	Written   time.Time `json:"written"`
	By        string    `json:"by,omitempty"`
	Removed   time.Time `json:"removed,omitzero"`
	Epoch     string    `json:"epoch,omitempty"`
	Rows      int       `json:"rows"`
	Complete  bool      `json:"complete"`
	Ours      time.Time `json:"ourCertificate,omitzero"`
	Server    time.Time `json:"serverCertificate,omitzero"`
}

// Mirrors returns the codec of what the mirror says of remote clusters, by cluster name.
func Mirrors() Codec[string, Mirror] {
	return Codec[string, Mirror]{
		Prefix:    MirrorsPrefix,
		FormatKey: func(cluster string) string { return cluster },
		ParseKey:  parseClusterKey,
		Encode: func(cluster string, m Mirror) ([]byte, error) {
			if err := checkMirror(cluster, m); err != nil {
				return nil, err
			}
			return encodeOwn(cluster, wireMirror{
				m.ID, m.Connected, m.Holding, m.Reason, second(m.Confirmed), second(m.Heartbeat), second(m.Written), m.By,
				second(m.Removed), m.Epoch, m.Rows, m.Complete, second(m.OurCertificate), second(m.ServerCertificate),
			}, m.Extra)
		},
		Decode: func(cluster string, b []byte) (Mirror, error) {
			var w wireMirror
			extra, err := decodeOwn(cluster, b, &w)
			if err != nil {
				return Mirror{}, err
			}
			m := Mirror{
				w.ID, w.Connected, w.Holding, w.Reason, second(w.Confirmed), second(w.Heartbeat), second(w.Written), w.By,
				second(w.Removed), w.Epoch, w.Rows, w.Complete, second(w.Ours), second(w.Server), extra,
			}
			return m, checkMirror(cluster, m)
		},
		Equal: func(a, b Mirror) bool { return a == b },
	}
}

// second is a time as rows have it.
func second(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Second)
}

func parseClusterKey(tail string) (string, error) {
	if err := CheckClusterName(tail); err != nil {
		return "", invalid(tail, "%v", err)
	}
	return tail, nil
}

func checkMirror(cluster string, m Mirror) error {
	if m.Rows < 0 {
		return invalid(cluster, "row counts %d rows", m.Rows)
	}
	if m.Epoch == "" {
		return nil
	}
	return checkEpoch(cluster, m.Epoch)
}

// Forget is a person's word that a remote cluster is gone for good: its copy goes. It is comparable.
type Forget struct {
	// By is who said it, At when, by the clock of whoever did.
	By string
	At time.Time
	// Done is when the copy was gone, by the mirror's clock; zero: it is not.
	Done  time.Time
	Extra Extra
}

type wireForget struct {
	By   string    `json:"by,omitempty"`
	At   time.Time `json:"at"`
	Done time.Time `json:"done,omitzero"`
}

// Forgets returns the codec of remote clusters that are to be forgotten, by cluster name.
func Forgets() Codec[string, Forget] {
	return Codec[string, Forget]{
		Prefix:    ForgetPrefix,
		FormatKey: func(cluster string) string { return cluster },
		ParseKey:  parseClusterKey,
		Encode: func(cluster string, f Forget) ([]byte, error) {
			return encodeOwn(cluster, wireForget{f.By, second(f.At), second(f.Done)}, f.Extra)
		},
		Decode: func(cluster string, b []byte) (Forget, error) {
			var w wireForget
			extra, err := decodeOwn(cluster, b, &w)
			return Forget{w.By, second(w.At), second(w.Done), extra}, err
		},
		Equal: func(a, b Forget) bool { return a == b },
	}
}

// MirrorPrefix is where the copy of a cluster's rows of one kind stands. The tails of keys are those of
// the cluster's own store.
func MirrorPrefix(cluster string, r Resource) string {
	prefix := CachePrefix + string(r) + "/v1/" + cluster + "/"
	if r == ResourceIdentities {
		prefix += "id/"
	}
	return prefix
}

// SyncedMarks returns the codec of synced marks, of all clusters. The value is the text of a time.
func SyncedMarks() Codec[string, string] {
	return Codec[string, string]{
		Prefix:    SyncedPrefix,
		FormatKey: func(tail string) string { return tail },
		ParseKey: func(tail string) (string, error) {
			cluster, _, _ := strings.Cut(tail, "/")
			if err := CheckClusterName(cluster); err != nil {
				return "", invalid(tail, "%v", err)
			}
			return tail, nil
		},
		Encode: func(_ string, text string) ([]byte, error) { return []byte(text), nil },
		Decode: func(tail string, b []byte) (string, error) {
			_, err := DecodeTime(tail, b)
			return string(b), err
		},
		Equal: func(a, b string) bool { return a == b },
	}
}

// zstdMagic is how every endpoint slice begins: it is packed.
const zstdMagic = "\x28\xb5\x2f\xfd"

// EndpointSlices returns the codec of endpoint slices as they are passed on: what is in one is for its
// readers to check, who unpack it. The value is its bytes.
func EndpointSlices(s Scope) Codec[ServiceKey, string] {
	prefix := EndpointSlicesPrefix + s.Cluster + "/"
	if s.Cached {
		prefix = MirrorPrefix(s.Cluster, ResourceEndpointSlices)
	}
	check := func(k ServiceKey, text string) error {
		key := k.Namespace + "/" + k.Name
		switch {
		case len(text) > MaxValue:
			return invalid(key, "value has %d bytes, more than %d", len(text), MaxValue)
		case !strings.HasPrefix(text, zstdMagic):
			return invalid(key, "not a packed endpoint slice")
		}
		return nil
	}
	return Codec[ServiceKey, string]{
		Prefix:    prefix,
		FormatKey: func(k ServiceKey) string { return k.Namespace + "/" + k.Name },
		ParseKey: func(tail string) (ServiceKey, error) {
			ns, name, err := parseNamespaced(tail)
			return ServiceKey{Cluster: s.Cluster, Namespace: ns, Name: name}, err
		},
		Encode: func(k ServiceKey, text string) ([]byte, error) { return []byte(text), check(k, text) },
		Decode: func(k ServiceKey, b []byte) (string, error) { return string(b), check(k, string(b)) },
		Equal:  func(a, b string) bool { return a == b },
	}
}
