// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/weft-net/weft/bpf"
)

// loaded are the programs of one run.
type loaded struct {
	objects *bpf.Objects
	sockets *bpf.Sockets // nil: not wanted, or refused
	refused error        // why sockets could not be loaded
}

// load loads the programs with the maps that are pinned, or with new ones. old are directories of
// maps that no longer count, to be removed once the new programs are attached.
//
// If the layout or the size of a map differs from what is pinned, the maps move to a new directory:
// those that fit are the same maps, of the others the rows are copied if only the size differs.
func load(p pins, cfg Config) (_ loaded, old []string, err error) {
	versions, err := p.versions()
	if err != nil {
		return loaded{}, nil, err
	}
	current := 1
	if len(versions) > 0 {
		current = versions[len(versions)-1]
		for _, v := range versions[:len(versions)-1] {
			old = append(old, p.maps(v))
		}
	}
	if err := os.MkdirAll(p.maps(current), 0o700); err != nil {
		return loaded{}, nil, fmt.Errorf("pins: %w", err)
	}
	l, err := loadFrom(cfg, p.maps(current))
	var layout *bpf.LayoutError
	if !errors.As(err, &layout) {
		return l, old, err
	}
	if err := moveMaps(p, cfg, current, current+1); err != nil {
		return loaded{}, nil, fmt.Errorf("maps of another layout: %w", err)
	}
	l, err = loadFrom(cfg, p.maps(current+1))
	return l, append(old, p.maps(current)), err
}

// loadFrom loads the programs with the maps of a directory. What is wrong with the programs at sockets is
// no error, unless it is a map's layout.
func loadFrom(cfg Config, dir string) (l loaded, err error) {
	programs := cfg.programs(dir)
	if l.objects, err = bpf.Load(programs); err != nil || cfg.SocketLB == SocketLBOff {
		return l, err
	}
	l.sockets, l.refused = bpf.LoadSockets(programs, l.objects)
	var layout *bpf.LayoutError
	if errors.As(l.refused, &layout) {
		l.objects.Close()
		return loaded{}, l.refused
	}
	return l, nil
}

// moveMaps makes the maps of a new version from those of the one before. The rename at the end is
// the commit: before it the old version counts, whatever happens.
func moveMaps(p pins, cfg Config, from, to int) error {
	next := filepath.Join(string(p), "next")
	if err := removePins(next); err != nil {
		return err
	}
	if err := os.Mkdir(next, 0o700); err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	specs, err := mapSpecs(cfg, next)
	if err != nil {
		return err
	}
	for name, ms := range specs {
		if ms.Pinning != ebpf.PinByName {
			continue
		}
		if err := moveMap(ms, filepath.Join(p.maps(from), name), filepath.Join(next, name)); err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
	}
	if err := os.Rename(next, p.maps(to)); err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	return nil
}

// mapSpecs are the maps of all programs that are wanted, by name.
func mapSpecs(cfg Config, dir string) (map[string]*ebpf.MapSpec, error) {
	spec, err := bpf.Spec(cfg.programs(dir))
	if err != nil {
		return nil, err
	}
	if cfg.SocketLB == SocketLBOff {
		return spec.Maps, nil
	}
	atSockets, err := bpf.SocketSpec(cfg.programs(dir))
	if err != nil {
		return nil, err
	}
	maps.Copy(spec.Maps, atSockets.Maps)
	return spec.Maps, nil
}

func moveMap(spec *ebpf.MapSpec, from, to string) error {
	have, err := ebpf.LoadPinnedMap(from, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a map that the old version did not have
	}
	if err != nil {
		return err
	}
	defer have.Close()
	if spec.Compatible(have) == nil {
		// A clone counts as not pinned: pinning it leaves the first pin where it is.
		same, err := have.Clone()
		if err != nil {
			return err
		}
		defer same.Close()
		return same.Pin(to)
	}
	unpinned := spec.Copy()
	unpinned.Pinning = ebpf.PinNone
	m, err := ebpf.NewMap(unpinned)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := copyRows(m, have); err != nil {
		return err
	}
	return m.Pin(to)
}

// copyRows fills a map with the rows of another if they have the same form. What does not fit is
// left out: reconcilers write again what they want, and flows are decided again.
func copyRows(to, from *ebpf.Map) error {
	if to.Type() != from.Type() || to.KeySize() != from.KeySize() || to.ValueSize() != from.ValueSize() {
		return nil
	}
	switch to.Type() {
	case ebpf.Hash, ebpf.LRUHash, ebpf.LPMTrie, ebpf.Array:
	default: // events and counters begin anew
		return nil
	}
	var key, value []byte
	rows := from.Iterate()
	for rows.Next(&key, &value) {
		if err := to.Put(key, value); err != nil {
			break
		}
	}
	if err := rows.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return err
	}
	return nil
}
