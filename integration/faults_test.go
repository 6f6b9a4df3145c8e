// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/integration/history"
	"github.com/weft-net/weft/integration/lab"
)

// fault is one thing that happens to the control plane of the first cluster or the store of the
// second.
type fault struct {
	name, store string
	long        bool         // for the soak only
	members     bool         // the store has three
	leases      bool         // the leases of nodes are short
	large       bool         // the store holds much
	servers     bool         // the clusters reach each other through API servers
	before      func(*trial) // what the fault shall find
	breaking    func(*trial) // returns once it is broken
	heal        func(*trial) // nil: it is whole when it was broken
	after       func(*trial) // what is to work at once when it is whole again
}

// trial is one fault that happens to one lab.
type trial struct {
	*observer
	cluster lab.Cluster // whose store it concerns
	spares  []lab.Pod   // what before has made for breaking
	file    string      // of a backup
}

// labs runs "weft lab" with each of the argument lists.
func labs(calls ...[]string) func(*trial) {
	return func(t *trial) {
		t.m.t.Helper()
		for _, args := range calls {
			t.m.lab(args...)
		}
	}
}

// faults are those of a store of one member.
func faults() []fault {
	return slices.Concat([]fault{
		{name: "etcd killed", store: "east", breaking: labs([]string{"kill", "etcd/east"}), heal: labs([]string{"start", "etcd/east"})},
		{
			name: "etcd frozen", store: "east", long: true,
			breaking: labs([]string{"kill", "-s", "STOP", "etcd/east"}), heal: labs([]string{"kill", "-s", "CONT", "etcd/east"}),
		},
		{
			name: "etcd frozen while a spare is deleted", store: "east", before: spares(1),
			breaking: func(t *trial) {
				t.m.lab("kill", "-s", "STOP", "etcd/east")
				t.drop(t.spares)
				t.waitGone(t.spares, t.m.Clusters[0].Nodes[0].Name)
			},
			heal: labs([]string{"kill", "-s", "CONT", "etcd/east"}),
		},
		{
			name: "etcd, operator and agent killed together", store: "east",
			breaking: labs([]string{"kill", "etcd/east", "operator/east", "agent/east-1"}),
			heal:     labs([]string{"start", "etcd/east", "operator/east", "agent/east-1"}),
		},
		{name: "the remote's etcd killed", store: "west", breaking: labs([]string{"kill", "etcd/west"}), heal: labs([]string{"start", "etcd/west"})},
	}, storeFaults("east"), remoteFaults("west"), leaseFaults(), thirdFaults())
}

// TestFaults_NobodyNotices breaks the control plane under traffic and judges the history: nothing
// that lives leaves a kernel, no number changes, no connect fails and no session ends; and what its
// owner deletes meanwhile goes everywhere. Then every owner's rows are back, and tables, maps and
// stores say the same. Guarantees: no mass delete; one set, one number; no stale after sync;
// invisible restart.
func TestFaults_NobodyNotices(t *testing.T) {
	short := slices.DeleteFunc(faults(), func(f fault) bool { return f.long })
	faultsUnderLoad(t, short, 100, 25)
}

// TestSoak_Faults does so with random faults for as long as WEFT_SOAK says. WEFT_SEED=N repeats the
// order of a run that printed N, FAULT="NAME;NAME" lets those happen in one
// lab and ends.
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
	all, members := faults(), memberFaults()
	others := slices.Concat(shortLeaseFaults(), clockFaults(), pageFaults()) // of labs of their own kind
	if only := os.Getenv("FAULT"); only != "" {
		faultsUnderLoad(t, named(t, slices.Concat(all, members, others), only), 1000, 200)
		return
	}
	// Each of them happens before one happens again.
	var deck []fault
	for begin, n := time.Now(), 1; time.Since(begin) < long && !t.Failed(); n++ {
		// A lab of its own for every ten keeps the history short.
		var some []fault
		for len(some) < min(10, len(all)) {
			if len(deck) == 0 {
				deck = slices.Clone(all)
				random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
				t.Run("members-"+strconv.Itoa(n), func(t *testing.T) { faultsUnderLoad(t, members, 1000, 200) })
				t.Run("others-"+strconv.Itoa(n), func(t *testing.T) { faultsUnderLoad(t, others, 1000, 200) })
			}
			some, deck = append(some, deck[0]), deck[1:]
		}
		t.Run(strconv.Itoa(n), func(t *testing.T) { faultsUnderLoad(t, some, 1000, 200) })
	}
}

// named picks faults by their names.
func named(t *testing.T, all []fault, names string) (some []fault) {
	t.Helper()
	for name := range strings.SplitSeq(names, ";") {
		at := slices.IndexFunc(all, func(f fault) bool { return f.name == name })
		if at < 0 {
			t.Fatalf("no fault %q", name)
		}
		some = append(some, all[at])
	}
	return some
}

// faultsUnderLoad builds a lab, puts connects (a second, half of them through a service) and long
// sessions on it, and lets one fault after the other happen.
func faultsUnderLoad(t *testing.T, faults []fault, connects, sessions int) {
	quota := storeQuota
	if slices.ContainsFunc(faults, func(f fault) bool { return f.large }) {
		quota = largeQuota
	}
	up := []string{"--nodes", "2", "--pods", "2", "--etcd-quota", strconv.Itoa(quota)}
	if slices.ContainsFunc(faults, func(f fault) bool { return f.members }) {
		up = append(up, "--etcd-members", storeMembers)
	}
	if slices.ContainsFunc(faults, func(f fault) bool { return f.leases }) {
		up = append(up, "--lease-ttl", shortLease.String())
	}
	if slices.ContainsFunc(faults, func(f fault) bool { return f.servers }) {
		up = append(up, "--apiservers", "2")
	}
	t.Setenv("WEFT_LOG_LEVEL", "debug") // what watches see is in the logs of agents
	t.Setenv("WEFT_LOG_FORMAT", "json")
	m := newMesh(t, labName("faults"), up...)
	o := m.observe()
	clients := o.callers(connects, sessions)
	for _, f := range faults {
		o.happen(f)
	}
	for _, p := range clients {
		p.stop()
	}
	o.judge()
	m.noRaces()
}

// callers are the clients of a lab: sessions and half of the connects to a pod of the other cluster, the
// other half to a service.
func (o *observer) callers(connects, sessions int) []*loadProcess {
	from, remote := o.m.Clusters[0].Nodes[0].Pods[0], o.m.Clusters[1].Nodes[0].Pods[1]
	rate := strconv.Itoa(connects / 2)
	return []*loadProcess{
		o.load("sessions", from.Name, "--to", remote.Addresses[0].String()+":7",
			"--rate", "0", "--sessions", strconv.Itoa(sessions), "--duration", "0s", "--timeout", "20s"),
		o.load("service", from.Name, "--rate", rate, "--duration", "0s", "--timeout", "20s"),
		o.load("remote", from.Name, "--to", remote.Addresses[0].String()+":13",
			"--rate", rate, "--duration", "0s", "--timeout", "20s"),
	}
}

// happen breaks something, lets traffic run, heals it, and waits until all is as if nothing had been.
func (o *observer) happen(f fault) {
	o.m.t.Helper()
	t := &trial{observer: o, cluster: o.m.Clusters[0]}
	if f.store == o.m.Clusters[1].Name {
		t.cluster = o.m.Clusters[1]
	}
	if f.before != nil {
		f.before(t)
	}
	rows, begin := t.ownedRows(), time.Now()
	o.rec.Add(history.Record{Kind: history.Fault, Name: f.name, Store: f.store})
	f.breaking(t)
	if f.heal != nil {
		o.wait()
		f.heal(t)
	}
	took := t.waitBack(rows)
	o.rec.Add(history.Record{Kind: history.Healed, Name: f.name, Store: f.store})
	o.wait()
	served := time.Since(begin)
	o.m.waitHealthy()
	healthy := time.Since(begin)
	o.m.waitEqual("after " + f.name)
	if f.after != nil {
		f.after(t)
		o.m.waitEqual("after what follows " + f.name)
	}
	o.m.t.Logf("survived: %s from %s in %v, traffic at %v, healthy at %v; all rows of %s back after %v", f.name,
		begin.UTC().Format("15:04:05.000"), time.Since(begin).Round(time.Millisecond), served.Round(time.Millisecond),
		healthy.Round(time.Millisecond), f.store, took.Round(time.Millisecond))
}

// waitHealthy waits until every agent calls itself and the mesh healthy.
func (m *mesh) waitHealthy() {
	m.t.Helper()
	var said []byte
	defer func() {
		if m.t.Failed() {
			m.t.Logf("the lab is not healthy:\n%s", said)
		}
	}()
	waitFor(m.t, "a healthy lab", func() (ok bool) {
		var err error
		said, err = exec.Command(m.bin, "lab", "status", "--name", m.name).CombinedOutput()
		return err == nil
	})
}
