// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

// choose writes the backends of one frontend, in the order that Service.Backends promises, and how
// many of them take new flows.
//
// Healthy are active and terminating backends; those of other clusters are always active, for the
// mesh does not carry more. Preferred are
//
//	affinity none    ours and the others'
//	affinity local   ours; the others' too while none of ours is active and they have any
//	affinity remote  the others'; ours while they have none
//
// New flows go to the active ones among the preferred, or to all of them where none is active.
func choose(cluster string, o Options, c *candidates) ([]Backend, int) {
	remote := c.remote
	if !o.Global {
		remote = nil
	}
	// The lists are merged twice, first to count and then to write, so that only the result is
	// allocated.
	var active, terminating, remotes int
	merge(cluster, c.local, remote, func(b Backend, ours bool) {
		switch {
		case !ours:
			remotes++
		case b.State == Active:
			active++
		default:
			terminating++
		}
	})
	if active+terminating+remotes == 0 {
		return nil, 0
	}
	useLocal, useRemote := true, true
	switch o.Affinity {
	case AffinityLocal:
		useRemote = active == 0
	case AffinityRemote:
		useLocal = remotes == 0
	}
	chosen := 0
	if useLocal {
		chosen += active
	}
	if useRemote {
		chosen += remotes
	}
	lastResort := chosen == 0 // none is active, so those that terminate still take new flows
	if lastResort {
		chosen = terminating
	}
	out := make([]Backend, active+terminating+remotes)
	front, back := 0, chosen
	merge(cluster, c.local, remote, func(b Backend, ours bool) {
		takes := useRemote
		if ours {
			takes = useLocal && (b.State == Active || lastResort)
		}
		if takes {
			out[front] = b
			front++
		} else {
			out[back] = b
			back++
		}
	})
	return out, chosen
}

// merge walks two lists that are sorted by address as one without duplicates. An address that
// several endpoints of ours hold is active if one of them is; one that stands on both sides is ours.
func merge(cluster string, local []localBackend, remote []Backend, yield func(b Backend, ours bool)) {
	for len(local) > 0 || len(remote) > 0 {
		if len(local) == 0 || len(remote) > 0 && remote[0].Addr.Compare(local[0].addr) < 0 {
			yield(remote[0], false)
			remote = remote[1:]
			continue
		}
		b := Backend{Addr: local[0].addr, Cluster: cluster, State: Terminating}
		for len(local) > 0 && local[0].addr == b.Addr {
			b.State = min(b.State, local[0].state)
			local = local[1:]
		}
		if len(remote) > 0 && remote[0].Addr == b.Addr {
			remote = remote[1:]
		}
		yield(b, true)
	}
}
