// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/kvstore/schema"
)

// TestChoose is the table of the format description: which backends take new flows. "a" is ours,
// "t" one of ours that terminates, "r" another cluster's; what only keeps its flows stands behind
// the bar.
func TestChoose(t *testing.T) {
	type row struct{ backends, none, local, remote, notGlobal string }
	for _, c := range []row{
		{"", "|", "|", "|", "|"},
		{"a", "a|", "a|", "a|", "a|"},
		{"t", "t|", "t|", "t|", "t|"},
		{"r", "r|", "r|", "r|", "|"},
		{"a a r r", "a a r r|", "a a|r r", "r r|a a", "a a|"},
		{"a t r", "a r|t", "a|t r", "r|a t", "a|t"},
		{"t r", "r|t", "r|t", "r|t", "t|"},
		{"t t", "t t|", "t t|", "t t|", "t t|"},
		{"a t", "a|t", "a|t", "a|t", "a|t"},
	} {
		for _, o := range []struct {
			name string
			Options
			want string
		}{
			{"none", Options{true, true, AffinityNone}, c.none},
			{"local", Options{true, true, AffinityLocal}, c.local},
			{"remote", Options{true, true, AffinityRemote}, c.remote},
			{"not-global", Options{}, c.notGlobal},
		} {
			t.Run(strings.ReplaceAll(o.name+"-"+c.backends, " ", ""), func(t *testing.T) {
				var in candidates
				letter := map[netip.AddrPort]string{}
				for i, l := range strings.Fields(c.backends) {
					a := netip.MustParseAddrPort(fmt.Sprintf("10.0.0.%d:80", i+1))
					letter[a] = l
					switch l {
					case "a":
						in.local = append(in.local, localBackend{addr: a})
					case "t":
						in.local = append(in.local, localBackend{addr: a, state: Terminating})
					case "r":
						in.remote = append(in.remote, Backend{Addr: a, Cluster: "far"})
					}
				}
				backends, chosen := choose("near", o.Options, &in)
				var front, back []string
				for i, b := range backends {
					if i < chosen {
						front = append(front, letter[b.Addr])
					} else {
						back = append(back, letter[b.Addr])
					}
				}
				if got := strings.Join(front, " ") + "|" + strings.Join(back, " "); got != o.want {
					t.Errorf("got %q, want %q", got, o.want)
				}
			})
		}
	}
}

// TestMerge_OneAddressTwice covers an address in two rows: while it moves between endpoints of ours,
// and when another cluster claims it too.
func TestMerge_OneAddressTwice(t *testing.T) {
	a := netip.MustParseAddrPort("10.0.0.1:80")
	one, two := &endpoint{key: schema.EndpointKey{Node: "n", ID: 1}}, &endpoint{key: schema.EndpointKey{Node: "n", ID: 2}}
	var got []Backend
	merge("near",
		[]localBackend{{a, Terminating, one}, {a, Active, two}},
		[]Backend{{Addr: a, Cluster: "far"}},
		func(b Backend, _ bool) { got = append(got, b) })
	want := []Backend{{Addr: a, Cluster: "near", State: Active}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}
