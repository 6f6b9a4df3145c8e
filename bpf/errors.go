// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// KernelError says that the kernel lacks something weft cannot do without.
type KernelError struct {
	Feature string // what is missing, in words
	Minimum string // the first Linux version that has it
	Err     error  // what the kernel answered
}

func (e *KernelError) Error() string {
	return fmt.Sprintf("the kernel has no %s, which Linux %s and newer have: %v", e.Feature, e.Minimum, e.Err)
}

func (e *KernelError) Unwrap() error { return e.Err }

// RefusedError says that the kernel's verifier refused a program. Error is one line; Log is
// everything the verifier said.
type RefusedError struct {
	Program string
	Log     []string
	Err     error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("program %s: the kernel's verifier refused it: %v", e.Program, e.Err)
}

func (e *RefusedError) Unwrap() error { return e.Err }

// LayoutError says that a pinned map has another layout or size than this version of weft makes.
type LayoutError struct {
	Map  string
	Path string // where it is pinned
	Err  error
}

func (e *LayoutError) Error() string {
	return fmt.Sprintf("map %s pinned at %s does not fit this version or its configuration: %v", e.Map, e.Path, e.Err)
}

func (e *LayoutError) Unwrap() error { return e.Err }

// FullError says that a map has no room for another row.
type FullError struct {
	Map  string
	Size uint32 // max entries
	Err  error
}

func (e *FullError) Error() string {
	return fmt.Sprintf("map %s is full at %d entries: %v", e.Map, e.Size, e.Err)
}

func (e *FullError) Unwrap() error { return e.Err }

// WriteError gives the error of a write to map m its type: *FullError when there is no room, else
// err with the map's name. It returns nil for nil.
func WriteError(name string, m *ebpf.Map, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.E2BIG), errors.Is(err, unix.ENOSPC):
		return &FullError{Map: name, Size: m.MaxEntries(), Err: err}
	}
	return fmt.Errorf("map %s: %w", name, err)
}

// RequireTCX returns a *KernelError when programs cannot be attached by tcx links.
func RequireTCX() error {
	const loopback = 1
	_, err := link.QueryPrograms(link.QueryOptions{Target: loopback, Attach: ebpf.AttachTCXIngress})
	return tcxError(err)
}

func tcxError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, ebpf.ErrNotSupported):
		return &KernelError{Feature: "attachment of programs by tcx links", Minimum: "6.6", Err: err}
	}
	return fmt.Errorf("query tcx programs of the loopback device: %w", err)
}

// loadError gives an error of loading the collection its type.
func loadError(err error, pinPath string) error {
	var refused *ebpf.VerifierError
	switch {
	case errors.As(err, &refused):
		return &RefusedError{Program: quoted(err.Error(), "program "), Log: refused.Log, Err: err}
	case errors.Is(err, ebpf.ErrMapIncompatible):
		return &LayoutError{Map: quoted(err.Error(), "map "), Path: pinPath, Err: err}
	}
	return err
}

// quoted finds the name that the library puts after a word, which it keeps in the text alone.
func quoted(text, word string) string {
	_, rest, ok := strings.Cut(text, word)
	if !ok {
		return "unknown"
	}
	name, _, _ := strings.Cut(rest, ":")
	return strings.Trim(name, `"`)
}
