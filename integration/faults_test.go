// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/weft-net/weft/integration/history"
)

// fault is one thing that happens to the control plane of the first cluster or the store of the
// second.
type fault struct {
	name, store string
	breaking    [][]string // arguments of "weft lab"
	heal        [][]string
}

// faults are those that are survived today. A store that comes back empty or older is not among them.
var faults = []fault{
	{"etcd killed", "east", [][]string{{"kill", "etcd/east"}}, [][]string{{"start", "etcd/east"}}},
	{"etcd wiped", "east", [][]string{{"store", "wipe", "east"}}, nil},
	{"etcd wiped, another id", "east", [][]string{{"store", "wipe", "--new-id", "east"}}, nil},
	{"etcd frozen", "east", [][]string{{"kill", "-s", "STOP", "etcd/east"}}, [][]string{{"kill", "-s", "CONT", "etcd/east"}}},
	{
		"etcd, operator and agent killed together", "east",
		[][]string{{"kill", "etcd/east", "operator/east", "agent/east-1"}},
		[][]string{{"start", "etcd/east", "operator/east", "agent/east-1"}},
	},
	{"the remote's etcd killed", "west", [][]string{{"kill", "etcd/west"}}, [][]string{{"start", "etcd/west"}}},
}

// TestFaults_NobodyNotices breaks the control plane under traffic and judges the history: nothing
// that lives leaves a kernel, no number changes, no connect fails and no session ends; and what its
// owner deletes meanwhile goes everywhere. Guarantees: no mass delete; one set, one number;
// invisible restart.
func TestFaults_NobodyNotices(t *testing.T) {
	faultsUnderLoad(t, faults, 200, 50)
}

// TestSoak_Faults does so with random faults for as long as WEFT_SOAK says. WEFT_SEED=N repeats the
// order of a run that printed N.
func TestSoak_Faults(t *testing.T) {
	text := os.Getenv("WEFT_SOAK")
	if text == "" {
		t.Skip("WEFT_SOAK does not say how long")
	}
	long, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("WEFT_SOAK: %v", err)
	}
	seed := rand.Uint64()
	if text := os.Getenv("WEFT_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("WEFT_SEED: %v", err)
		}
	}
	t.Logf("WEFT_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for begin, n := time.Now(), 1; time.Since(begin) < long && !t.Failed(); n++ {
		// A lab of its own for every ten keeps the history short.
		some := make([]fault, 10)
		for i := range some {
			some[i] = faults[random.IntN(len(faults))]
		}
		t.Run(strconv.Itoa(n), func(t *testing.T) { faultsUnderLoad(t, some, 1000, 200) })
	}
}

// faultsUnderLoad builds a lab, puts connects (a second, half of them through a service) and long
// sessions on it, and lets one fault after the other happen.
func faultsUnderLoad(t *testing.T, faults []fault, connects, sessions int) {
	m := newMesh(t, labName("faults"), "--nodes", "1", "--pods", "3")
	o := m.observe()
	east, west := m.Clusters[0].Nodes[0], m.Clusters[1].Nodes[0]
	client, remote, victim := east.Pods[0], west.Pods[1], west.Pods[2]
	rate := strconv.Itoa(connects / 2)
	clients := []*loadProcess{
		o.load("sessions", client.Name, "--to", remote.Addresses[0].String()+":7",
			"--rate", "0", "--sessions", strconv.Itoa(sessions), "--duration", "0s", "--timeout", "20s"),
		o.load("service", client.Name, "--rate", rate, "--duration", "0s", "--timeout", "20s"),
		o.load("remote", client.Name, "--to", remote.Addresses[0].String()+":13",
			"--rate", rate, "--duration", "0s", "--timeout", "20s"),
	}
	for _, f := range faults {
		o.during(f.name, f.store, func() { m.labs(f.breaking) }, func() { m.labs(f.heal) })
		m.waitHealthy()
		m.waitEqual("after " + f.name)
		t.Logf("survived: %s", f.name)
	}
	o.during("etcd frozen while a pod is deleted", "east", func() {
		m.lab("kill", "-s", "STOP", "etcd/east")
		o.row(history.Died, victim)
		m.lab("kill", "pod/"+victim.Name)
		waitFor(t, "end of the deleted pod", func() bool {
			return !o.has(east.Name, victim.Addresses[0].String()) && !o.has(west.Name, victim.Addresses[0].String())
		})
	}, func() { m.lab("kill", "-s", "CONT", "etcd/east") })
	m.waitEqual("after a pod was deleted")
	for _, p := range clients {
		p.stop()
	}
	o.judge()
	m.noRaces()
}

func (m *mesh) labs(calls [][]string) {
	m.t.Helper()
	for _, args := range calls {
		m.lab(args...)
	}
}

// waitHealthy waits until every agent calls itself and the mesh healthy.
func (m *mesh) waitHealthy() {
	m.t.Helper()
	waitFor(m.t, "a healthy lab", func() bool {
		return exec.Command(m.bin, "lab", "status", "--name", m.name).Run() == nil
	})
}
