// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/integration/history"
	"github.com/weft-net/weft/integration/lab"
)

// observer writes the history of a lab: what the kernels of its nodes have, which numbers its
// endpoints have, what was broken on purpose, and at the end what its clients saw.
type observer struct {
	m    *mesh
	rec  *history.Recorder
	logs map[string]string // of clients, by the pod that calls
	stop context.CancelFunc
	done sync.WaitGroup
	made int // spares, to name the next one

	numbers map[uint32]bool   // identities of spares
	stores  map[string]*truth // by cluster
	blind   map[string]bool   // nodes whose logs are not read: their clocks were wrong
	clock   string            // file of the clock that can be wrong

	mu    sync.Mutex
	owner map[string]string          // of an address: the cluster
	here  map[string]map[string]bool // by node: the addresses in its ipcache
}

// watchPeriod is how often a node's map is read. What is gone for less may go unseen.
const watchPeriod = 100 * time.Millisecond

// observe begins the history of a lab in which all pods live.
func (m *mesh) observe() *observer {
	m.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	o := &observer{
		m: m, rec: history.NewRecorder(nil), logs: map[string]string{}, stop: stop,
		owner: map[string]string{}, here: map[string]map[string]bool{}, numbers: map[uint32]bool{},
		stores: map[string]*truth{}, blind: map[string]bool{},
	}
	for _, c := range m.Clusters {
		for _, n := range c.Nodes {
			for _, p := range n.Pods {
				o.row(history.Born, p)
			}
		}
	}
	for _, c := range m.Clusters {
		s := &truth{rec: o.rec, name: c.Name, dir: filepath.Join(filepath.Dir(c.CA), "etcd"), client: m.client(c)}
		o.stores[c.Name] = s
		o.done.Go(func() { s.follow(ctx) })
		for _, n := range c.Nodes {
			o.here[n.Name] = map[string]bool{}
			o.done.Add(1)
			go func() { defer o.done.Done(); o.follow(ctx, n) }()
		}
	}
	m.t.Cleanup(func() { stop(); o.done.Wait() })
	return o
}

// row says what a pod's owner wants of its addresses.
func (o *observer) row(kind history.Kind, p lab.Pod) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, addr := range p.Addresses {
		o.owner[addr.String()] = p.Cluster
		o.rec.Add(history.Record{Kind: kind, By: p.Node, Store: p.Cluster, Prefix: "ipcache", Key: addr.String()})
	}
}

// follow reads one node's map again and again. While its agent is away nobody looks.
func (o *observer) follow(ctx context.Context, n lab.Node) {
	client, conn, err := api.Dial(n.Socket)
	if err != nil {
		o.m.t.Error(err)
		return
	}
	defer conn.Close()
	tick := time.NewTicker(watchPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if entries, err := mapEntries(ctx, client, "ipcache"); err == nil {
			o.compare(n.Name, entries)
		}
		if list, err := client.EndpointList(ctx, &api.EndpointListRequest{}); err == nil {
			for _, ep := range list.Endpoints {
				if ep.Identity != 0 {
					o.rec.Add(history.Record{Kind: history.Uses, By: ep.Name, Store: n.Cluster,
						Labels: strings.Join(ep.IdentityLabels, ";"), Number: ep.Identity})
				}
			}
		}
	}
}

func (o *observer) compare(node string, entries map[string][]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	here := o.here[node]
	for addr, cluster := range o.owner {
		_, is := entries[addr]
		if is == here[addr] {
			continue
		}
		kind := history.Here
		if !is {
			kind = history.Gone
		}
		here[addr] = is
		o.rec.Add(history.Record{Kind: kind, By: node, Store: cluster, Prefix: "ipcache", Key: addr})
	}
}

// has says whether a node had an address when it was last looked at.
func (o *observer) has(node, addr string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.here[node][addr]
}

// load starts a client of which the history has every connect.
func (o *observer) load(name, from string, args ...string) *loadProcess {
	o.m.t.Helper()
	file := filepath.Join(o.m.t.TempDir(), name)
	o.logs[file] = from
	return o.m.load(from, append(args, "--log", file)...)
}

// wait waits until every client has logged more, so that a fault meets traffic.
func (o *observer) wait() {
	o.m.t.Helper()
	const more = 3_000 // bytes, some 25 lines
	for file := range o.logs {
		size := func() int64 {
			info, err := os.Stat(file)
			if err != nil {
				return 0
			}
			return info.Size()
		}
		begin := size()
		waitFor(o.m.t, "traffic in "+file, func() bool { return size() >= begin+more })
	}
}

// judge ends the history, after the clients ended, and reports what it shows broken.
func (o *observer) judge() {
	o.m.t.Helper()
	o.stop()
	o.done.Wait()
	all := [][]history.Record{o.rec.Records()}
	for file, from := range o.logs {
		all = append(all, connects(o.m.t, file, from))
	}
	seen := o.traces()
	records := history.Merge(append(all, seen)...)
	for _, v := range history.Check(records, history.Limits{InForce: patience}) {
		o.m.t.Error(v)
	}
	o.m.t.Logf("history of %d records, %d of them of watches", len(records), len(seen))
}

// traces are what the watches of agents were told, by their logs.
func (o *observer) traces() []history.Record {
	o.m.t.Helper()
	var all [][]history.Record
	life := func(store string, at time.Time) string { return o.stores[store].life(at) }
	for _, c := range o.m.Clusters {
		for _, n := range c.Nodes {
			if o.blind[n.Name] {
				continue
			}
			f, err := os.Open(n.Agent.Log)
			if err != nil {
				o.m.t.Fatal(err)
			}
			defer f.Close()
			records, err := history.Traces(f, history.Traced{By: n.Name, Store: c.Name, Alone: len(c.APIServers) > 0, Life: life})
			if err != nil {
				o.m.t.Fatal(err)
			}
			if len(records) == 0 {
				o.m.t.Errorf("%s: not a word of a watch", n.Agent.Log)
			}
			all = append(all, records)
		}
	}
	return history.Merge(all...)
}

// connects reads the log of a client.
func connects(t *testing.T, file, from string) []history.Record {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var records []history.Record
	messages := map[int]int{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var c lab.Connect
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		r := history.Record{At: c.At, Kind: history.Connect, By: from, To: filepath.Base(file), Took: c.Took, Error: c.Error, Answer: c.Cluster + "/" + c.Name}
		if c.Kind == "session" {
			messages[c.Session]++
			r.Kind, r.Session, r.Message, r.Answer = history.Message, c.Session, messages[c.Session], ""
		}
		records = append(records, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if len(records) == 0 {
		t.Fatalf("%s: a client without a record", file)
	}
	return records
}
