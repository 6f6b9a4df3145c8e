// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/integration/lab"
	"github.com/weft-net/weft/kvstore/schema"
)

// mirror is a table that mirrors a prefix of the stores.
type mirror struct {
	table, prefix string
	copied        schema.Resource // as what API servers copy it
	ours          bool            // only that of the own cluster
	cluster       bool            // the name of the cluster follows the prefix, in keys of the store as in the table
	bare          bool            // keys of the table do not begin with the cluster
}

// mirrors are all tables of an agent that come from stores.
func mirrors() []mirror {
	return []mirror{
		{table: "nodes", prefix: schema.NodesPrefix, copied: schema.ResourceNodes, cluster: true},
		{table: "ips", prefix: schema.IPsPrefix, copied: schema.ResourceIPs},
		{table: "identities", prefix: schema.IdentityIDsPrefix, copied: schema.ResourceIdentities},
		{table: "endpoints", prefix: schema.EndpointsPrefix, ours: true, bare: true},
		{table: "definitions", prefix: schema.DefinitionsPrefix, ours: true, bare: true},
	}
}

// waitEqual waits until on every node tables, maps and stores say the same, and what the stores say
// is what the nodes have. Guarantee: no stale after sync.
func (m *mesh) waitEqual(what string) {
	m.t.Helper()
	var differences []string
	defer func() {
		if m.t.Failed() {
			m.t.Logf("%s: %s", what, strings.Join(differences, "\n"))
		}
	}()
	waitFor(m.t, "tables, maps and stores that are equal "+what, func() bool {
		differences = m.unequal()
		return len(differences) == 0
	})
}

// unequal says in what tables, maps and stores differ.
func (m *mesh) unequal() (all []string) {
	stores := map[string]map[string]map[string]int64{} // by cluster and prefix
	for _, c := range m.Clusters {
		stores[c.Name] = map[string]map[string]int64{}
		for _, w := range mirrors() {
			rows, err := storeRows(m.t.Context(), m.client(c), w.prefix)
			if err != nil {
				return []string{fmt.Sprintf("store of %s: %v", c.Name, err)}
			}
			stores[c.Name][w.prefix] = rows
		}
	}
	for _, c := range m.Clusters {
		copies, err := m.copies(c)
		if err != nil {
			return []string{fmt.Sprintf("copies in the store of %s: %v", c.Name, err)}
		}
		have := map[string]bool{}
		for _, n := range c.Nodes {
			addrs, differences := m.unequalNode(c.Name, n, stores, copies)
			all = append(all, differences...)
			for _, a := range addrs {
				have[a] = true
			}
		}
		if diff := cmp.Diff(slices.Sorted(maps.Keys(have)), slices.Sorted(maps.Keys(stores[c.Name][schema.IPsPrefix]))); diff != "" {
			all = append(all, fmt.Sprintf("addresses of endpoints of %s (-nodes +store): %s", c.Name, diff))
		}
	}
	return all
}

// copies are what the store of a cluster has of the others, by table and by the table's keys, where API
// servers copy them; nil where agents read the others themselves.
func (m *mesh) copies(c lab.Cluster) (map[string]map[string]int64, error) {
	if len(c.APIServers) == 0 {
		return nil, nil
	}
	copies := map[string]map[string]int64{}
	for _, w := range mirrors() {
		copies[w.table] = map[string]int64{}
		for _, of := range m.Clusters {
			if w.ours || of.ID == c.ID {
				continue
			}
			rows, err := storeRows(m.t.Context(), m.client(c), schema.MirrorPrefix(of.Name, w.copied))
			if err != nil {
				return nil, err
			}
			for key, revision := range rows {
				copies[w.table][of.Name+"/"+key] = revision
			}
		}
	}
	return copies, nil
}

// unequalNode says so for one node, and which addresses its endpoints have. A row of another cluster has
// the revision of its copy, if there are copies.
func (m *mesh) unequalNode(cluster string, n lab.Node, stores map[string]map[string]map[string]int64, copies map[string]map[string]int64) (addrs, all []string) {
	client, conn, err := api.Dial(n.Socket)
	if err != nil {
		return nil, []string{err.Error()}
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(m.t.Context(), storeAnswer)
	defer cancel()
	differ := func(what string, want, got any) {
		if diff := cmp.Diff(want, got); diff != "" {
			all = append(all, fmt.Sprintf("%s on %s (-want +got): %s", what, n.Name, diff))
		}
	}
	tables := map[string]map[string]*api.Row{}
	for _, name := range []string{"nodes", "ips", "identities", "endpoints", "definitions", "ipcache", "frontends", "local-endpoints"} {
		if tables[name], err = tableRows(ctx, client, name); err != nil {
			return nil, []string{fmt.Sprintf("table %s of %s: %v", name, n.Name, err)}
		}
	}
	for _, w := range mirrors() {
		want, got := map[string]int64{}, map[string]int64{}
		for of, prefixes := range stores {
			for key, revision := range prefixes[w.prefix] {
				if !w.bare && !w.cluster {
					key = of + "/" + key
				}
				switch {
				case of == cluster || copies == nil && !w.ours:
					want[key] = revision
				case !w.ours:
					want[key] = copies[w.table][key] // 0: it lacks the row
				}
			}
		}
		for key, revision := range copies[w.table] {
			want[key] = revision // one too many, perhaps
		}
		for key, row := range tables[w.table] {
			got[key] = row.Origin
		}
		differ("table "+w.table, want, got)
	}
	for _, p := range []struct {
		table, bpf string
		row, entry func(value []byte) string
	}{
		{"ipcache", "ipcache", field("identity"), field("identity")},
		{"frontends", "lb", chosen, entered},
		{"local-endpoints", "endpoint", field("identity"), field("identity")},
	} {
		want, got := map[string]string{}, map[string]string{}
		for key, row := range tables[p.table] {
			want[key] = p.row(row.Value)
		}
		entries, err := mapEntries(ctx, client, p.bpf)
		if err != nil {
			return nil, []string{fmt.Sprintf("map %s of %s: %v", p.bpf, n.Name, err)}
		}
		for key, value := range entries {
			got[key] = p.entry(value)
		}
		differ("map "+p.bpf, want, got)
	}
	// The kernel has every address that is known, under the number that is known of it.
	want, got := map[string]string{}, map[string]string{}
	for key, row := range tables["ips"] {
		_, addr, _ := strings.Cut(key, "/")
		want[addr] = field("identity")(row.Value)
		if entry := tables["ipcache"][addr]; entry != nil {
			got[addr] = field("identity")(entry.Value)
		}
	}
	differ("table ipcache", want, got)
	for _, row := range tables["local-endpoints"] {
		var v struct{ Addresses []string }
		if err := json.Unmarshal(row.Value, &v); err != nil {
			all = append(all, err.Error())
		}
		addrs = append(addrs, v.Addresses...)
	}
	return addrs, all
}

// field is the text of one field of a JSON object.
func field(name string) func([]byte) string {
	return func(value []byte) string {
		var v map[string]json.RawMessage
		if err := json.Unmarshal(value, &v); err != nil {
			return err.Error()
		}
		return string(v[name])
	}
}

// entered lists the backends of a map's entry. Their order is that in which they came.
func entered(value []byte) string {
	var v struct{ Backends []string }
	if err := json.Unmarshal(value, &v); err != nil {
		return err.Error()
	}
	slices.Sort(v.Backends)
	return fmt.Sprint(v.Backends)
}

// chosen lists the backends of a frontend that take new flows, as the map's entry does.
func chosen(value []byte) string {
	var v struct {
		Backends []struct {
			Address string
			Chosen  bool
		}
	}
	list := []string{}
	if err := json.Unmarshal(value, &v); err != nil {
		return err.Error()
	}
	for _, b := range v.Backends {
		if b.Chosen {
			list = append(list, b.Address)
		}
	}
	slices.Sort(list)
	return fmt.Sprint(list)
}

func tableRows(ctx context.Context, client api.AgentClient, table string) (map[string]*api.Row, error) {
	stream, err := client.TableGet(ctx, &api.TableGetRequest{Table: table})
	if err != nil {
		return nil, err
	}
	rows := map[string]*api.Row{}
	for {
		item, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, err
		}
		if row := item.GetRow(); row != nil {
			rows[row.Key] = row
		}
	}
}

func mapEntries(ctx context.Context, client api.AgentClient, name string) (map[string][]byte, error) {
	stream, err := client.MapGet(ctx, &api.MapGetRequest{Map: name})
	if err != nil {
		return nil, err
	}
	entries := map[string][]byte{}
	for {
		entry, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		entries[entry.Key] = entry.Value
	}
}

// client is the mesh's one client of a cluster's store.
func (m *mesh) client(c lab.Cluster) *clientv3.Client {
	m.t.Helper()
	if m.clients == nil {
		m.clients = map[string]*clientv3.Client{}
	}
	if m.clients[c.Name] == nil {
		m.clients[c.Name] = storeClient(m.t, c)
	}
	return m.clients[c.Name]
}
