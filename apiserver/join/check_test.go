// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/apiserver/trust"
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestCheck(t *testing.T) {
	root, err := trust.NewRoot("east", trust.RootLife)
	must(t, err)
	ours := Facts{Name: "east", ID: 1, MaxClusters: 255, Mode: "vxlan", PodCIDRs: prefixes("10.1.0.0/16"), Root: root.Cert}
	north, err := trust.NewRoot("north", trust.RootLife)
	must(t, err)
	theirs := validFacts(t)
	others := []Known{
		{"north", 3, prefixes("10.3.0.0/16"), string(north.Cert.Raw)},
		{"west", 2, prefixes("10.2.0.0/16"), string(theirs.Root.Raw)}, {"byhand", 4, nil, ""},
	}
	if r := check(ours, theirs, others); r != nil {
		t.Fatalf("got %v", r)
	}
	for name, c := range map[string]struct {
		edit func(*Facts)
		want string
	}{
		"name":           {func(f *Facts) { f.Name = "east" }, "both clusters are called east"},
		"id":             {func(f *Facts) { f.ID = 1 }, "same id, 1"},
		"id-of-another":  {func(f *Facts) { f.Name, f.ID = "south", 3 }, "id 3 as that of cluster north"},
		"id-changed":     {func(f *Facts) { f.ID = 5 }, "knows cluster west by the id 2, not 5"},
		"size":           {func(f *Facts) { f.MaxClusters = 511 }, "mesh of 255 clusters"},
		"mode":           {func(f *Facts) { f.Mode = "native" }, "by vxlan, west by native"},
		"family":         {func(f *Facts) { f.PodCIDRs = prefixes("fd00:2::/48") }, "no family of addresses in common"},
		"cidr-inside":    {func(f *Facts) { f.PodCIDRs = prefixes("10.1.7.0/24") }, "pod CIDR 10.1.7.0/24 of west overlaps 10.1.0.0/16 of east"},
		"cidr-around":    {func(f *Facts) { f.PodCIDRs = prefixes("10.0.0.0/8") }, "overlaps 10.1.0.0/16 of east"},
		"cidr-of-others": {func(f *Facts) { f.PodCIDRs = prefixes("10.3.0.0/24") }, "overlaps 10.3.0.0/16 of cluster north"},
		"root":           {func(f *Facts) { f.Root = root.Cert }, "same root"},
		"root-of-others": {func(f *Facts) { f.Root = north.Cert }, "is that of cluster north"},
	} {
		t.Run(name, func(t *testing.T) {
			f := theirs
			c.edit(&f)
			r := check(ours, f, others)
			if r == nil || !strings.Contains(r.Reason, c.want) {
				t.Fatalf("got %v, want %q in it", r, c.want)
			}
			if r.Todo == "" {
				t.Errorf("no way out of: %s", r.Reason)
			}
		})
	}
}

func TestAggregate(t *testing.T) {
	for name, c := range map[string]struct{ in, want []netip.Prefix }{
		"none":       {nil, nil},
		"neighbours": {prefixes("10.0.1.0/24", "10.0.0.0/24", "10.0.3.0/24", "10.0.2.0/24"), prefixes("10.0.0.0/22")},
		"no-pair":    {prefixes("10.0.1.0/24", "10.0.2.0/24"), prefixes("10.0.1.0/24", "10.0.2.0/24")},
		"inside":     {prefixes("10.0.0.0/8", "10.2.0.0/16", "10.2.0.0/16"), prefixes("10.0.0.0/8")},
		"families":   {prefixes("fd00::/65", "fd00:0:0:0:8000::/65", "10.0.0.0/25", "10.0.0.128/25"), prefixes("10.0.0.0/24", "fd00::/64")},
		"all":        {prefixes("0.0.0.0/1", "128.0.0.0/1"), prefixes("0.0.0.0/0")},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, aggregate(c.in), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
