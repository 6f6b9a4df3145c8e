// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"encoding/hex"
	"net/netip"
	"time"
)

type wireVIP struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

type wireEpoch struct {
	Epoch   string    `json:"epoch"`
	Created time.Time `json:"created,omitzero"`
}

type wireOwner struct {
	Epoch    string `json:"epoch"`
	Rows     int    `json:"rows"`
	Complete bool   `json:"complete"`
	Left     bool   `json:"left,omitempty"`
}

type wireResting struct {
	Freed  time.Time `json:"freed"`
	Labels string    `json:"labels,omitempty"`
}

// VIPs returns the codec of the virtual addresses that services hold.
func VIPs() Codec[netip.Addr, VIP] {
	return Codec[netip.Addr, VIP]{
		Prefix:    VIPsPrefix,
		FormatKey: netip.Addr.String,
		ParseKey: func(tail string) (netip.Addr, error) {
			p, err := parseIP(tail)
			if err != nil || p.Addr().String() != tail {
				return netip.Addr{}, invalid(tail, "not an address")
			}
			return p.Addr(), nil
		},
		Encode: func(a netip.Addr, v VIP) ([]byte, error) {
			if err := checkVIP(a, v); err != nil {
				return nil, err
			}
			return encodeOwn(a.String(), wireVIP{v.Namespace, v.Name}, v.Extra)
		},
		Decode: func(a netip.Addr, b []byte) (VIP, error) {
			var w wireVIP
			extra, err := decodeOwn(a.String(), b, &w)
			if err != nil {
				return VIP{}, err
			}
			v := VIP{Namespace: w.Namespace, Name: w.Name, Extra: extra}
			return v, checkVIP(a, v)
		},
		Equal: func(a, b VIP) bool { return a == b },
	}
}

func checkVIP(a netip.Addr, v VIP) error {
	if err := checkAddrs(a.String(), []netip.Addr{a}); err != nil {
		return err
	}
	if err := checkName(a.String(), "namespace", v.Namespace); err != nil {
		return err
	}
	return checkName(a.String(), "name", v.Name)
}

// Owners returns the codec of what nodes say about their own rows, by node name.
func Owners() Codec[string, Owner] {
	return Codec[string, Owner]{
		Prefix:    OwnersPrefix,
		FormatKey: func(node string) string { return node },
		ParseKey: func(tail string) (string, error) {
			return tail, checkName(tail, "node name", tail)
		},
		Encode: func(node string, o Owner) ([]byte, error) {
			if err := checkOwner(node, o); err != nil {
				return nil, err
			}
			return encodeOwn(node, wireOwner{o.Epoch, o.Rows, o.Complete, o.Left}, o.Extra)
		},
		Decode: func(node string, b []byte) (Owner, error) {
			var w wireOwner
			extra, err := decodeOwn(node, b, &w)
			if err != nil {
				return Owner{}, err
			}
			o := Owner{Epoch: w.Epoch, Rows: w.Rows, Complete: w.Complete, Left: w.Left, Extra: extra}
			return o, checkOwner(node, o)
		},
		Equal: func(a, b Owner) bool { return a == b },
	}
}

func checkOwner(node string, o Owner) error {
	if o.Rows < 0 {
		return invalid(node, "row counts %d rows", o.Rows)
	}
	if o.Left && o.Rows > 0 {
		return invalid(node, "row says that the node has left, and counts %d rows", o.Rows)
	}
	return checkEpoch(node, o.Epoch)
}

func checkEpoch(key, id string) error {
	if b, err := hex.DecodeString(id); err != nil || len(b) != 16 {
		return invalid(key, "epoch %q is not 32 hexadecimal digits", clip(id, 64))
	}
	return nil
}

// Restings returns the codec of identity numbers at rest.
func Restings(s Scope) Codec[IdentityKey, Resting] {
	return Codec[IdentityKey, Resting]{
		Prefix:    RestingPrefix,
		FormatKey: IdentityKey.String,
		ParseKey: func(tail string) (IdentityKey, error) {
			id, err := parseNumber(tail, tail)
			return IdentityKey{Cluster: s.Cluster, ID: id}, err
		},
		Encode: func(k IdentityKey, r Resting) ([]byte, error) {
			return encodeOwn(k.String(), wireResting{r.Freed.UTC().Truncate(time.Second), r.Labels}, r.Extra)
		},
		Decode: func(k IdentityKey, b []byte) (Resting, error) {
			var w wireResting
			extra, err := decodeOwn(k.String(), b, &w)
			return Resting{Freed: w.Freed.UTC().Truncate(time.Second), Labels: w.Labels, Extra: extra}, err
		},
		Equal: func(a, b Resting) bool { return a == b },
	}
}

// EncodeEpoch writes the value of EpochKey.
func EncodeEpoch(e Epoch) ([]byte, error) {
	if err := checkEpoch(EpochKey, e.ID); err != nil {
		return nil, err
	}
	return encodeOwn(EpochKey, wireEpoch{e.ID, e.Created.UTC().Truncate(time.Second)}, e.Extra)
}

// DecodeEpoch is the inverse of EncodeEpoch.
func DecodeEpoch(b []byte) (Epoch, error) {
	var w wireEpoch
	extra, err := decodeOwn(EpochKey, b, &w)
	if err != nil {
		return Epoch{}, err
	}
	return Epoch{ID: w.Epoch, Created: w.Created.UTC().Truncate(time.Second), Extra: extra}, checkEpoch(EpochKey, w.Epoch)
}
