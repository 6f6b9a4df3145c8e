// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"os"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestForwardDrops_Kinds(t *testing.T) {
	tests := []struct {
		name  string
		rules [][]string
		want  []string
	}{
		{name: "nothing"},
		{name: "nft-accept", rules: [][]string{
			{"nft", "add table inet x"},
			{"nft", "add chain inet x f { type filter hook forward priority 0; policy accept; }"},
		}},
		{name: "nft-drop", want: []string{"inet x f"}, rules: [][]string{
			{"nft", "add table inet x"},
			{"nft", "add chain inet x f { type filter hook forward priority 0; policy drop; }"},
		}},
		{name: "nft-drop-of-input", rules: [][]string{
			{"nft", "add table ip x"},
			{"nft", "add chain ip x i { type filter hook input priority 0; policy drop; }"},
		}},
		{name: "iptables-nft", rules: [][]string{{"iptables-nft", "-P", "FORWARD", "DROP"}}, want: []string{"ip filter FORWARD"}},
		{name: "iptables-legacy", rules: [][]string{{"iptables-legacy", "-P", "FORWARD", "DROP"}}, want: []string{"iptables FORWARD"}},
		{name: "iptables-legacy-accept", rules: [][]string{{"iptables-legacy", "-A", "FORWARD", "-j", "DROP"}}},
		{name: "ip6tables-legacy", rules: [][]string{{"ip6tables-legacy", "-P", "FORWARD", "DROP"}}, want: []string{"ip6tables FORWARD"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ns := testNS(t, "fw")
			for _, r := range tt.rules {
				if _, err := exec.LookPath(r[0]); err != nil {
					if os.Getenv("CI") == "true" {
						t.Fatalf("%s is not installed, and CI=true does not let this test skip", r[0])
					}
					t.Skipf("%s is not installed", r[0])
				}
				mustRun(t, ns, r...)
			}
			got, err := forwardDrops(testHost(t, ns))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// FuzzParseForwardDrop gives the parser of foreign bytes any of them.
func FuzzParseForwardDrop(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0, 0, 8, 0, 5, 0, 0, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, b []byte) { parseForwardDrop(b) })
}

// FuzzPolicyDrops gives the reader of legacy tables any bytes and offsets.
func FuzzPolicyDrops(f *testing.F) {
	f.Add(make([]byte, 200), 0, 88)
	f.Fuzz(func(_ *testing.T, b []byte, at, off int) {
		if off < 0 || off > 1000 {
			return
		}
		policyDrops(b, at, off)
	})
}
