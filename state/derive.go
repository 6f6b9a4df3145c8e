// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import "context"

// Marker is the side of a [Table] that says whether a source has delivered everything.
type Marker interface {
	Expect(src ...Source)
	MarkSynced(src Source)
	MarkUnsynced(src Source)
}

// Derive is the loop around every derivation: each time one of the inputs has something new it
// calls step, until ctx ends. It returns nil then, else the error of step.
//
// step reads every input once by [Cursor.Next], also those that turn out to have nothing, turns
// the changes into rows by a pure function, and writes these to the output. It may leave changes
// for the next round: to read some thousands at a time keeps memory bounded.
//
//	ips, nodes := ipTable.Cursor(), nodeTable.Cursor()
//	defer ips.Close()
//	defer nodes.Close()
//	return state.Derive(ctx, entries, "derived", func() error {
//		changedIPs, changedNodes := ips.Next(1000), nodes.Next(1000)
//		entries.Update(func(w *state.Writer[netip.Addr, Entry]) { ... })
//		return nil
//	}, ips, nodes)
//
// The output's source src is expected from the start, marked synced when every input is synced and
// everything in them has gone through step, and unsynced as soon as an input no longer is. out may
// be nil if the output is no table.
func Derive(ctx context.Context, out Marker, src Source, step func() error, inputs ...Input) error {
	if out != nil {
		out.Expect(src)
	}
	for {
		if err := WaitAny(ctx, inputs...); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if err := step(); err != nil {
			return err
		}
		if out == nil {
			continue
		}
		drained, synced := true, true
		for _, in := range inputs {
			d, s := in.standing()
			drained, synced = drained && d, synced && s
		}
		switch {
		case !synced:
			out.MarkUnsynced(src)
		case drained:
			out.MarkSynced(src)
		}
	}
}
