// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/weft-net/weft/agent/checkpoint"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// keptTable is a table whose rows are kept over a restart.
type keptTable interface {
	Name() string
	Sources() []state.SourceStatus
	// marks says for each source how its rows stand: a change of them changes its mark.
	marks() map[state.Source]tableMark
	// save writes the rows of a source and returns how many, and how many cannot be written.
	save(w *checkpoint.Writer, src state.Source, s schema.Scope) (rows, bad int)
	// restore puts rows that were saved under a source, without marking it synced, and says when
	// they were last right. Those that are not valid any more are counted and left out.
	restore(rows []checkpoint.Row, src state.Source, s schema.Scope, at time.Time) (put, bad int)
}

// tableMark changes with every change of a source's rows in one table: a row that is new or changed
// has a higher revision than all, and where only rows went there are fewer.
type tableMark struct {
	rows     int
	revision uint64
}

// kept is a table with the codec of its rows.
type kept[K comparable, V any] struct {
	*state.Table[K, V]
	codec func(schema.Scope) schema.Codec[K, V]
}

func (t kept[K, V]) marks() map[state.Source]tableMark {
	marks := map[state.Source]tableMark{}
	for row := range t.All() {
		m := marks[row.Source]
		marks[row.Source] = tableMark{m.rows + 1, max(m.revision, row.Revision)}
	}
	return marks
}

func (t kept[K, V]) save(w *checkpoint.Writer, src state.Source, s schema.Scope) (rows, bad int) {
	codec := t.codec(s)
	w.Table(t.Name())
	for row := range t.All() {
		if row.Source != src {
			continue
		}
		value, err := codec.Encode(row.Key, row.Value)
		if err != nil {
			bad++
			continue
		}
		w.Row(checkpoint.Row{Key: codec.FormatKey(row.Key), Value: value, Origin: row.Origin})
		rows++
	}
	return rows, bad
}

func (t kept[K, V]) restore(rows []checkpoint.Row, src state.Source, s schema.Scope, at time.Time) (put, bad int) {
	codec := t.codec(s)
	t.Update(func(w *state.Writer[K, V]) {
		for _, row := range rows {
			k, err := codec.ParseKey(row.Key)
			if err != nil {
				bad++
				continue
			}
			v, err := codec.Decode(k, row.Value)
			if err != nil {
				bad++
				continue
			}
			w.Put(src, row.Origin, k, v)
			put++
		}
	})
	t.Confirm(src, at)
	return put, bad
}

// keptTables are the tables of which rows are kept: those of our own store, and those of a remote's.
func (t tables) keptTables() (own, remote map[string]keptTable) {
	nodes := kept[schema.NodeKey, schema.Node]{t.nodes, schema.Nodes}
	ips := kept[schema.IPKey, schema.IP]{t.ips, schema.IPs}
	identities := kept[schema.IdentityKey, string]{t.identities, schema.Identities}
	endpoints := kept[schema.EndpointKey, schema.Endpoint]{t.endpoints, schema.Endpoints}
	definitions := kept[schema.DefinitionKey, schema.Definition]{
		t.definitions, func(schema.Scope) schema.Codec[schema.DefinitionKey, schema.Definition] { return schema.Definitions() },
	}
	services := kept[schema.ServiceKey, schema.ClusterService]{t.remoteServices, schema.Services}
	own = map[string]keptTable{
		"nodes": nodes, "ips": ips, "identities": identities, "endpoints": endpoints, "definitions": definitions,
	}
	remote = map[string]keptTable{
		string(schema.ResourceNodes): nodes, string(schema.ResourceIPs): ips,
		string(schema.ResourceIdentities): identities, string(schema.ResourceServices): services,
	}
	return own, remote
}
