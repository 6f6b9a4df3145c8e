// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// objects are the kernel's numbers of the BPF objects that a lab holds by its pins.
type objects struct {
	maps     map[ebpf.MapID]bool
	programs map[ebpf.ProgramID]bool
	links    map[link.ID]bool
}

// objectsBelow collects what is pinned below a directory, and what the pinned programs use.
func objectsBelow(dir string) objects {
	o := objects{map[ebpf.MapID]bool{}, map[ebpf.ProgramID]bool{}, map[link.ID]bool{}}
	// A directory that cannot be walked holds nothing that could be left behind.
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if m, err := ebpf.LoadPinnedMap(path, nil); err == nil {
			if info, err := m.Info(); err == nil {
				if id, ok := info.ID(); ok {
					o.maps[id] = true
				}
			}
			m.Close()
			return nil
		}
		if l, err := link.LoadPinnedLink(path, nil); err == nil {
			if info, err := l.Info(); err == nil {
				o.links[info.ID] = true
				o.program(info.Program)
			}
			l.Close()
			return nil
		}
		if p, err := ebpf.LoadPinnedProgram(path, nil); err == nil {
			if info, err := p.Info(); err == nil {
				if id, ok := info.ID(); ok {
					o.program(id)
				}
			}
			p.Close()
		}
		return nil
	})
	return o
}

// program notes a program and the maps it uses.
func (o objects) program(id ebpf.ProgramID) {
	o.programs[id] = true
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return
	}
	defer p.Close()
	if info, err := p.Info(); err == nil {
		if ids, ok := info.MapIDs(); ok {
			for _, m := range ids {
				o.maps[m] = true
			}
		}
	}
}

// left lists those that the kernel still has. It frees them some time after the last reference is
// gone.
func (o objects) left() []string {
	var left []string
	for id := range o.links {
		if l, err := link.NewFromID(id); err == nil {
			l.Close()
			left = append(left, fmt.Sprintf("bpf link %d", id))
		}
	}
	for id := range o.programs {
		if p, err := ebpf.NewProgramFromID(id); err == nil {
			p.Close()
			left = append(left, fmt.Sprintf("bpf program %d", id))
		}
	}
	for id := range o.maps {
		if m, err := ebpf.NewMapFromID(id); err == nil {
			m.Close()
			left = append(left, fmt.Sprintf("bpf map %d", id))
		}
	}
	return left
}

// Traces lists everything on the host that belongs to a lab of that name: processes, namespaces,
// mounts, files. Without a lab it is empty.
func Traces(name, dir string) ([]string, error) {
	var traces []string
	pids, err := processesOf(name)
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		traces = append(traces, fmt.Sprintf("process %d", pid))
	}
	names, err := netnsOf(name)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		traces = append(traces, "namespace "+n)
	}
	mounts, err := mountsBelow(dir)
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		traces = append(traces, "mount "+m)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		traces = append(traces, "directory "+dir)
	}
	return traces, nil
}

// waitGone waits until nothing of a lab is left, its BPF objects included.
func waitGone(ctx context.Context, name, dir string, o objects) error {
	var left []string
	err := until(ctx, func() (bool, error) {
		traces, err := Traces(name, dir)
		left = append(traces, o.left()...)
		return len(left) == 0, err
	})
	if err != nil {
		return fmt.Errorf("%w: still there: %s", err, strings.Join(left, ", "))
	}
	return nil
}
