// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// heldMagic begins the file of held keys, with the version of its format.
const heldMagic = "weft-held 1 "

// heldPath is where the keys are that were held when a lineage was written.
func heldPath(lineage string) string { return lineage + ".held" }

// heldOnDisk is which rows are held, without their values: those are in the checkpoint of whoever
// keeps one.
type heldOnDisk struct {
	since  time.Time
	reason string
	mass   bool                             // those whose leases ended are too many to be believed
	rows   map[string]map[string]carriedRow // by resource and key
}

// fileHeld is a heldOnDisk as it stands in the file.
type fileHeld struct {
	Since  time.Time   `json:"since"`
	Reason string      `json:"reason"`
	Mass   bool        `json:"mass,omitempty"`
	Groups []fileGroup `json:"groups"`
}

type fileGroup struct {
	Resource string        `json:"resource"`
	Owner    string        `json:"owner"`
	Why      Why           `json:"why"`
	Revision int64         `json:"revision"`
	Born     time.Duration `json:"born"` // on the guard's clock
	Since    time.Time     `json:"since"`
	Keys     []string      `json:"keys"`
}

// encodeHeld writes the file. Rows of one group are said to be held since the first of them is.
func encodeHeld(h heldOnDisk) ([]byte, error) {
	f := fileHeld{Since: h.since, Reason: h.reason, Mass: h.mass}
	for resource, rows := range h.rows {
		groups := map[heldGroup]*fileGroup{}
		for key, r := range rows {
			g := groups[r.group]
			if g == nil {
				g = &fileGroup{resource, r.group.owner, r.group.why, r.group.revision, r.group.born, r.since, nil}
				groups[r.group] = g
			}
			if r.since.Before(g.Since) {
				g.Since = r.since
			}
			g.Keys = append(g.Keys, key)
		}
		for _, g := range groups {
			slices.Sort(g.Keys)
			f.Groups = append(f.Groups, *g)
		}
	}
	slices.SortFunc(f.Groups, func(a, b fileGroup) int {
		return cmp.Or(cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Keys[0], b.Keys[0]))
	})
	return seal(heldMagic, f)
}

// decodeHeld is the inverse of encodeHeld.
func decodeHeld(b []byte) (heldOnDisk, error) {
	var f fileHeld
	if err := unseal(heldMagic, b, &f); err != nil {
		return heldOnDisk{}, err
	}
	h := heldOnDisk{f.Since, f.Reason, f.Mass, map[string]map[string]carriedRow{}}
	for _, g := range f.Groups {
		if g.Resource == "" || g.Owner == "" || g.Why == "" || g.Revision <= 0 || len(g.Keys) == 0 {
			return heldOnDisk{}, errors.New("a group of rows is not whole")
		}
		if h.rows[g.Resource] == nil {
			h.rows[g.Resource] = map[string]carriedRow{}
		}
		for _, key := range g.Keys {
			h.rows[g.Resource][key] = carriedRow{heldGroup{g.Owner, g.Why, g.Revision, g.Born}, g.Since}
		}
	}
	return h, nil
}

// readHeld reads the file beside that of a lineage. One that is not there is no error.
func readHeld(lineage string) (heldOnDisk, error) {
	path := heldPath(lineage)
	b, err := readWhole(path)
	if errors.Is(err, os.ErrNotExist) {
		return heldOnDisk{rows: map[string]map[string]carriedRow{}}, nil
	}
	h := heldOnDisk{}
	if err == nil {
		h, err = decodeHeld(b)
	}
	if err != nil {
		return heldOnDisk{rows: map[string]map[string]carriedRow{}}, fmt.Errorf("held rows in %s: %w", path, err)
	}
	return h, nil
}

// writeHeld replaces the file in one step, or removes it where nothing is held.
func writeHeld(lineage string, h heldOnDisk) error {
	path := heldPath(lineage)
	if len(h.rows) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("held rows to %s: %w", path, err)
		}
		return nil
	}
	b, err := encodeHeld(h)
	if err == nil {
		err = replaceFile(path, b)
	}
	if err != nil {
		return fmt.Errorf("held rows to %s: %w", path, err)
	}
	return nil
}
