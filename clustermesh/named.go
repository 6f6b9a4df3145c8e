// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package clustermesh

import (
	"context"
	"maps"

	"github.com/weft-net/weft/kvstore/schema"
)

// remember takes note of what an earlier run knew, and waits a moment for our own store to say which
// remotes it has copies of: until that is known nothing may be pruned. The error is that of ctx.
func (m *Mesh) remember(ctx context.Context) error {
	if m.views == nil {
		return nil
	}
	if m.cfg.Kept != nil {
		for _, name := range m.cfg.Kept.Clusters() {
			if name != m.cfg.Cluster && schema.CheckClusterName(name) == nil {
				m.earlier[name] = true
			}
		}
	}
	return m.views.listed(ctx, viewsGrace)
}

// withCopies adds to the remotes that have a file those that only a copy in our own store names. A
// remote that is known by its copy goes when the mirror takes the copy away, as ours says and Cilium's
// shows, or somebody had it forgotten, or it has left: that the copy is not there may be a loss of our
// store. One that an earlier run knew goes also if our store is the one it was, has no copy of it, and does
// not say that it has joined.
func (m *Mesh) withCopies(files map[string]file) map[string]file {
	if m.views == nil {
		return files
	}
	all := maps.Clone(files)
	named := m.views.named()
	for name := range files {
		delete(m.earlier, name)
		delete(m.removed, name)
	}
	for name, run := range m.running {
		if _, ok := files[name]; !ok && !run.copied {
			m.removed[name] = true
		}
	}
	maps.DeleteFunc(m.removed, func(name string, _ bool) bool { _, still := named[name]; return !still })
	byCopy := func(name string) {
		if _, ok := files[name]; !ok {
			all[name] = file{copied: true}
		}
	}
	for name, going := range named {
		// Who removed the file of one, or comes when it is about to go, does not wait for the copy.
		if !m.removed[name] && (!going || m.running[name] != nil) {
			delete(m.earlier, name)
			byCopy(name)
		}
	}
	for name, run := range m.running {
		if run.copied && !m.earlier[name] && !m.views.over(name) && !m.peers.left(name, run.began) {
			byCopy(name)
		}
	}
	if m.views.known() && m.peers.heard() && (m.cfg.Settled == nil || m.cfg.Settled()) {
		// Of one that joined and did not leave our store may have lost the copy together with the mirror that
		// would bring it back. That nothing of the store is held any more says nothing of that.
		maps.DeleteFunc(m.earlier, func(name string, _ bool) bool {
			id, _ := m.ids.pinned(name)
			return id == 0 || m.views.over(name)
		})
	}
	for name := range m.earlier {
		byCopy(name)
	}
	return all
}
