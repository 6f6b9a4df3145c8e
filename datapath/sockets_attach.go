// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/bpf"
)

// attach makes sure that the programs of this load run at the cgroup.
func (s *sockets) attach() error {
	group, id, err := openCgroup(s.cfg.SocketCgroup)
	if err != nil {
		return err
	}
	defer group.Close()
	if err := os.MkdirAll(s.pins.sockets(), 0o700); err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	for _, h := range s.objects.Hooks() {
		if err := s.attachOne(h, group, id); err != nil {
			return fmt.Errorf("attach %s to cgroup %s: %w", h.Name, s.cfg.SocketCgroup, err)
		}
	}
	return nil
}

// attachOne updates a link that is pinned in place, so that no socket meets a time without a program.
func (s *sockets) attachOne(h bpf.SocketHook, group *os.File, id uint64) error {
	path := filepath.Join(s.pins.sockets(), h.Name)
	have, err := link.LoadPinnedLink(path, nil)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		defer have.Close()
		info, err := have.Info()
		if err != nil {
			return err
		}
		if c := info.Cgroup(); c != nil && c.CgroupId == id {
			return runProgram(have, info.Program, h.Program)
		}
		// Of a cgroup that is gone, or that the setting named before.
		if err := unpinLink(path); err != nil {
			return err
		}
	}
	made, err := link.AttachRawLink(link.RawLinkOptions{Target: int(group.Fd()), Program: h.Program, Attach: h.Attach})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return &bpf.KernelError{Feature: "links of programs to cgroups", Minimum: "5.7", Err: err}
	}
	if err != nil {
		return err
	}
	defer made.Close()
	return made.Pin(path)
}

// runProgram makes a link run a program, unless it does.
func runProgram(l link.Link, runs ebpf.ProgramID, program *ebpf.Program) error {
	info, err := program.Info()
	if err != nil {
		return err
	}
	if id, ok := info.ID(); ok && id == runs {
		return nil
	}
	return l.Update(program)
}

// detach removes the programs of an earlier run with their pins, and their maps.
func (s *sockets) detach() error {
	if err := unpinLinks(s.pins.sockets()); err != nil {
		return err
	}
	versions, err := s.pins.versions()
	if err != nil {
		return err
	}
	for _, v := range versions {
		for _, name := range []string{"namespaces", "sockets", "socket_counts"} {
			if err := os.Remove(filepath.Join(s.pins.maps(v), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove pins: %w", err)
			}
		}
	}
	return nil
}

// unpinLinks detaches all links that are pinned in a directory, which need not be there.
func unpinLinks(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("pins: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if err := unpinLink(filepath.Join(dir, e.Name())); err != nil {
			errs = append(errs, fmt.Errorf("detach %s: %w", e.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// openCgroup opens a cgroup for attachments and finds its number, by which links know it. The caller closes it.
func openCgroup(path string) (_ *os.File, id uint64, err error) {
	group, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("cgroup: %w", err)
	}
	defer func() {
		if err != nil {
			group.Close()
		}
	}()
	var in unix.Statfs_t
	if err := unix.Fstatfs(int(group.Fd()), &in); err != nil {
		return nil, 0, fmt.Errorf("cgroup %s: %w", path, err)
	}
	if in.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil, 0, fmt.Errorf("cgroup %s: not of version 2; mount -t cgroup2 none <directory> makes one that is", path)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(group.Fd()), &st); err != nil {
		return nil, 0, fmt.Errorf("cgroup %s: %w", path, err)
	}
	return group, st.Ino, nil
}
