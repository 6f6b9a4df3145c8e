// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
	"testing"
)

func TestNextAddress(t *testing.T) {
	for name, c := range map[string]struct {
		cidr, after string
		used        []string
		want        string // empty: an error
	}{
		"first":            {"10.96.0.0/24", "", nil, "10.96.0.1"},
		"next-free":        {"10.96.0.0/24", "", []string{"10.96.0.1", "10.96.0.2"}, "10.96.0.3"},
		"after":            {"10.96.0.0/24", "10.96.0.9", nil, "10.96.0.10"},
		"after-outside":    {"10.96.0.0/24", "10.97.0.9", nil, "10.96.0.1"},
		"round":            {"10.96.0.0/30", "10.96.0.1", []string{"10.96.0.2"}, "10.96.0.1"},
		"after-the-last":   {"10.96.0.0/30", "10.96.0.2", nil, "10.96.0.1"},
		"after-broadcast":  {"10.96.0.0/30", "10.96.0.3", nil, "10.96.0.1"},
		"host-bits":        {"10.96.0.77/24", "", nil, "10.96.0.1"},
		"full":             {"10.96.0.0/30", "", []string{"10.96.0.1", "10.96.0.2"}, ""},
		"two-addresses":    {"10.96.0.0/31", "", []string{"10.96.0.0"}, "10.96.0.1"},
		"one-address":      {"10.96.0.5/32", "", nil, "10.96.0.5"},
		"one-address-full": {"10.96.0.5/32", "", []string{"10.96.0.5"}, ""},
		"v6":               {"fd00::/64", "", nil, "fd00::1"},
		"v6-last-is-used":  {"fd00::/126", "fd00::2", nil, "fd00::3"},
	} {
		t.Run(name, func(t *testing.T) {
			used := map[netip.Addr]bool{}
			for _, s := range c.used {
				used[netip.MustParseAddr(s)] = true
			}
			var after netip.Addr
			if c.after != "" {
				after = netip.MustParseAddr(c.after)
			}
			got, err := NextAddress(netip.MustParsePrefix(c.cidr), after, func(a netip.Addr) bool { return used[a] })
			if c.want == "" {
				if err == nil {
					t.Fatalf("got %s", got)
				}
				return
			}
			if err != nil || got != netip.MustParseAddr(c.want) {
				t.Errorf("got %s, %v; want %s", got, err, c.want)
			}
		})
	}
	if _, err := NextAddress(netip.Prefix{}, netip.Addr{}, func(netip.Addr) bool { return false }); err == nil {
		t.Error("an invalid prefix gave an address")
	}
}
