// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"reflect"
	"time"

	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
	"github.com/weft-net/weft/state"
)

// derived is the source of rows that are computed.
const derived state.Source = "derived"

// serviceBatch is how many changes of each input one round takes: it bounds how
// long a round holds back the first frontend.
const serviceBatch = 1000

// defaultServiceHold is how long a restarted agent waits for the other clusters
// before it writes global services without them.
const defaultServiceHold = time.Minute

// services derives frontends from definitions, endpoints and the services of
// other clusters.
//
// After a start the kernel still has the frontends of the run before. A frontend
// that was derived from half of the inputs would take backends away from it, so
// nothing is written before our own definitions and endpoints are synced, and no
// global service that it has before those of the other clusters are, or hold is over.
// What was restored from a checkpoint counts as synced here: it is no half.
type services struct {
	cfg         service.Config
	hold        time.Duration
	had         func() func(service.Frontend) bool // what the run before left in the kernel
	definitions *state.Table[schema.DefinitionKey, schema.Definition]
	endpoints   *state.Table[schema.EndpointKey, schema.Endpoint]
	remote      *state.Table[schema.ServiceKey, schema.ClusterService]
	restored    *state.Table[state.Source, bool] // sources whose rows are those of a checkpoint
	frontends   *state.Table[service.Frontend, service.Service]
	infos       *state.Table[schema.DefinitionKey, service.Info]
}

func newFrontendTable() *state.Table[service.Frontend, service.Service] {
	return state.NewTable[service.Frontend]("frontends", service.Service.Equal)
}

func newServiceTable() *state.Table[schema.DefinitionKey, service.Info] {
	return state.NewTable[schema.DefinitionKey]("services", func(a, b service.Info) bool { return reflect.DeepEqual(a, b) })
}

// Run derives until ctx ends.
func (s *services) Run(ctx context.Context) error {
	definitions, endpoints, remote := s.definitions.Cursor(), s.endpoints.Cursor(), s.remote.Cursor()
	defer definitions.Close()
	defer endpoints.Close()
	defer remote.Close()
	restored := s.restored.Cursor()
	defer restored.Close()
	over := state.NewTable[string]("service-hold", state.Equal[bool]) // its row is the end of the hold
	over.MarkSynced(derived)
	overCursor := over.Cursor()
	defer overCursor.Close()
	defer time.AfterFunc(s.hold, func() { over.Put(derived, 0, "over", true) }).Stop()

	index := service.NewIndex(s.cfg)
	had := s.had()
	none := func(service.Frontend) bool { return false }
	held := map[service.Frontend]service.Change{}
	// What was complete once is not half again: a hold takes the mark of its sources away and no row.
	known := false
	return state.Derive(ctx, marks{s.frontends, s.infos}, derived, func() error {
		definitions.Feed(serviceBatch, index.SetDefinition, index.DeleteDefinition)
		endpoints.Feed(serviceBatch, index.SetEndpoint, index.DeleteEndpoint)
		remote.Feed(serviceBatch, index.SetRemote, index.DeleteRemote)
		overCursor.Next(0)
		restored.Next(0)
		// In this order: what is complete was put before it was called so.
		ours := s.complete(s.definitions) && s.complete(s.endpoints)
		all := s.complete(s.remote)
		changes := index.Flush()
		for _, c := range changes.Frontends {
			held[c.Frontend] = c
		}
		ours = known || ours && definitions.Drained() && endpoints.Drained()
		known = ours
		if ours && (all && remote.Drained() || over.Len() > 0) {
			had = none
		}
		s.release(held, had, ours)
		s.describe(index, changes.Services)
		return nil
	}, definitions, endpoints, remote, overCursor, restored)
}

// complete says that every source of a table has delivered all it has, or that what it had was
// restored.
func (s *services) complete(t interface{ Sources() []state.SourceStatus }) bool {
	sources := t.Sources()
	for _, src := range sources {
		if _, restored := s.restored.Get(src.Source); !src.Synced && !restored {
			return false
		}
	}
	return len(sources) > 0
}

// release writes and forgets what need not be held any more: when ours is complete,
// everything but the global services that had says it of.
func (s *services) release(held map[service.Frontend]service.Change, had func(service.Frontend) bool, ours bool) {
	if !ours {
		return
	}
	s.frontends.Update(func(w *state.Writer[service.Frontend, service.Service]) {
		for f, c := range held {
			switch {
			case c.Service.Global && had(f):
				continue
			case c.Deleted:
				w.Delete(derived, 0, f)
			default:
				w.Put(derived, 0, f, c.Service)
			}
			delete(held, f)
		}
	})
}

// describe writes what people are told of services.
func (s *services) describe(index *service.Index, names []schema.DefinitionKey) {
	for _, name := range names {
		if info, ok := index.Info(name); ok {
			s.infos.Put(derived, 0, name, info)
		} else {
			s.infos.Delete(derived, 0, name)
		}
	}
}

// marks hands the marks of a derivation to all the tables it writes.
type marks []state.Marker

func (m marks) Expect(src ...state.Source) {
	for _, t := range m {
		t.Expect(src...)
	}
}

func (m marks) MarkSynced(src state.Source) {
	for _, t := range m {
		t.MarkSynced(src)
	}
}

func (m marks) MarkUnsynced(src state.Source) {
	for _, t := range m {
		t.MarkUnsynced(src)
	}
}
