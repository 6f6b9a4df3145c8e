// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSummary_SortsWhoAnswered(t *testing.T) {
	var out bytes.Buffer
	if err := (Summary{By: map[string]int{"west/b": 1, "east/b": 2, "east/a": 3}}).print(&out, "table"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		if f := strings.Fields(line); len(f) == 3 && f[1] == "\u00d7" {
			got = append(got, f[2])
		}
	}
	if diff := cmp.Diff([]string{"east/a", "east/b", "west/b"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestStatus_ShowsWhatIsNow says that the plan's identity is not printed where the agent has another.
func TestStatus_ShowsWhatIsNow(t *testing.T) {
	o := DefaultOptions()
	o.Clusters, o.Nodes, o.Pods = 1, 1, 1
	l := plan(o)
	pod := &l.Clusters[0].Nodes[0].Pods[0]
	pod.Identity = 7
	s := Status{
		Lab: l, Cut: []string{"control/east"}, Judged: []Judged{{What: "pod/" + pod.Name, Healthy: true}, {What: "etcd/east"}},
		Endpoints: map[string]Live{pod.Name: {Addresses: []string{"10.1.1.2"}, Identity: 65600, Labels: []string{"k8s:app=new"}, State: "ready"}},
	}
	var out bytes.Buffer
	if err := s.print(&out, "table"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10.1.1.2  identity 65600  ready  k8s:app=new", "cut: control/east; bring back with 'weft lab heal LINK'"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	if err := s.err(); !errors.Is(err, ErrUnhealthy) || !strings.Contains(err.Error(), "etcd/east") {
		t.Errorf("got %v", err)
	}
}

func TestStands_OnlyWhatIsThere(t *testing.T) {
	if dir := t.TempDir(); stands("nosuchlab", dir+"/none") || !stands("nosuchlab", dir) {
		t.Error("want nothing without the directory, something with it")
	}
}
