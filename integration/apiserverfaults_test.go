// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// apiserverFaults are those of API servers, and of the stores behind them, where the clusters reach each
// other through two of them each.
func apiserverFaults() []fault {
	return []fault{
		unmoved("an API server killed", "west", []string{"apiserver/west"}),
		unmoved("the other API server killed", "west", []string{"apiserver/west/2"}),
		unmoved("both API servers killed", "west", []string{"apiserver/west", "apiserver/west/2"}),
		unmoved("the etcd behind API servers killed", "west", []string{"etcd/west"}),
		unmoved("the API servers and their etcd killed", "west", []string{"etcd/west", "apiserver/west", "apiserver/west/2"}),
		unmoved("all API servers killed", "east", []string{"apiserver/east", "apiserver/east/2", "apiserver/west", "apiserver/west/2"}),
		{
			name: "an API server frozen", store: "west",
			breaking: labs([]string{"kill", "-s", "STOP", "apiserver/west"}), heal: labs([]string{"kill", "-s", "CONT", "apiserver/west"}),
		},
		{
			name: "a spare deleted while the API servers are killed", store: "east", before: spares(1),
			breaking: func(t *trial) {
				t.m.lab("kill", "apiserver/east", "apiserver/east/2")
				t.drop(t.spares)
				var own []string
				for _, n := range t.cluster.Nodes {
					own = append(own, n.Name)
				}
				t.waitGone(t.spares, own...)
			},
			heal: func(t *trial) {
				t.m.lab("start", "apiserver/east", "apiserver/east/2")
				t.waitGone(t.spares)
			},
		},
		{name: "the etcd behind API servers wiped", store: "west", breaking: labs([]string{"store", "wipe", "west"})},
	}
}

// unmoved kills processes of a control plane and starts them again, and compares what is in the kernels
// with what was.
func unmoved(name, store string, processes []string) fault {
	before := ""
	read := func(t *trial) string {
		t.m.t.Helper()
		text, err := kernels(t.m.t.Context(), t.m.Lab)
		if err != nil {
			t.m.t.Fatal(err)
		}
		return text
	}
	same := func(t *trial, when string) {
		t.m.t.Helper()
		if diff := cmp.Diff(before, read(t)); diff != "" {
			t.m.t.Errorf("%s: maps %s (-before +now):\n%s", name, when, diff)
		}
	}
	return fault{
		name: name, store: store,
		breaking: func(t *trial) {
			before = read(t)
			t.m.lab(append([]string{"kill"}, processes...)...)
		},
		heal: func(t *trial) {
			same(t, "while they are away")
			t.m.lab(append([]string{"start"}, processes...)...)
			t.m.waitHealthy()
			same(t, "after that")
		},
	}
}

// TestSoak_APIServers lets each fault of API servers happen once, under traffic, and judges the history
// as TestFaults_NobodyNotices does. FAULT="NAME;NAME" takes some.
func TestSoak_APIServers(t *testing.T) {
	if os.Getenv("WEFT_SOAK") == "" {
		t.Skip("WEFT_SOAK is not set")
	}
	some := apiserverFaults()
	for i := range some {
		some[i].servers = true
	}
	if only := os.Getenv("FAULT"); only != "" {
		some = named(t, some, only)
	}
	faultsUnderLoad(t, some, 100, 25)
}
