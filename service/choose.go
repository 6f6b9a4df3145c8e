// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import "slices"

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
	all := merge(cluster, c.local, remote)
	var localActive, remotes int
	for _, b := range all {
		switch {
		case b.Cluster != cluster:
			remotes++
		case b.State == Active:
			localActive++
		}
	}
	useLocal, useRemote := true, true
	switch o.Affinity {
	case AffinityLocal:
		useRemote = localActive == 0
	case AffinityRemote:
		useLocal = remotes == 0
	}
	anyActive := useLocal && localActive > 0 || useRemote && remotes > 0
	takes := func(b Backend) bool {
		preferred := useRemote
		if b.Cluster == cluster {
			preferred = useLocal
		}
		return preferred && (b.State == Active || !anyActive)
	}
	chosen := 0
	for _, b := range all {
		if takes(b) {
			chosen++
		}
	}
	if chosen == len(all) {
		return all, chosen
	}
	parted := make([]Backend, len(all))
	front, back := 0, chosen
	for _, b := range all {
		if takes(b) {
			parted[front] = b
			front++
		} else {
			parted[back] = b
			back++
		}
	}
	return parted, chosen
}

// merge joins two lists that are sorted by address into one without duplicates. An address that
// several endpoints of ours hold is active if one of them is; one that stands on both sides is ours.
func merge(cluster string, local []localBackend, remote []Backend) []Backend {
	if len(local)+len(remote) == 0 {
		return nil
	}
	out := make([]Backend, 0, len(local)+len(remote))
	for len(local) > 0 || len(remote) > 0 {
		if len(local) == 0 || len(remote) > 0 && remote[0].Addr.Compare(local[0].addr) < 0 {
			out = append(out, remote[0])
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
		out = append(out, b)
	}
	return slices.Clip(out)
}
