// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/bpf"
)

// hook is a program's place at a device.
type hook struct {
	program string // name in the object, and in the pin
	attach  ebpf.AttachType
	of      func(*bpf.Objects) *ebpf.Program
}

func hookFromEndpoint() hook {
	return hook{"from_endpoint", ebpf.AttachTCXIngress, func(o *bpf.Objects) *ebpf.Program { return o.FromEndpoint }}
}

func hookToEndpoint() hook {
	return hook{"to_endpoint", ebpf.AttachTCXEgress, func(o *bpf.Objects) *ebpf.Program { return o.ToEndpoint }}
}

func hookFromNetdev() hook {
	return hook{"from_netdev", ebpf.AttachTCXIngress, func(o *bpf.Objects) *ebpf.Program { return o.FromNetdev }}
}

func hookFromOverlay() hook {
	return hook{"from_overlay", ebpf.AttachTCXIngress, func(o *bpf.Objects) *ebpf.Program { return o.FromOverlay }}
}

func hookFromHost() hook {
	return hook{"from_host", ebpf.AttachTCXEgress, func(o *bpf.Objects) *ebpf.Program { return o.FromHost }}
}

// endpointHooks are what every endpoint device has.
func endpointHooks() []hook { return []hook{hookFromEndpoint(), hookToEndpoint()} }

// attacher attaches the programs of one load. Its links are pinned: they outlive the process.
type attacher struct {
	host    *host
	pins    pins
	objects *bpf.Objects

	// mu makes looking at a pin and acting on it one step: the devices of a slot come and go while
	// the keeper removes what is left of those that are gone.
	mu sync.Mutex
}

// attach makes sure that the program of this load runs at a device. A link that is pinned is
// updated in place, so that no packet meets a device without a program.
func (a *attacher) attach(ifindex int, h hook) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.tryAttachLocked(ifindex, h); err != nil {
		return fmt.Errorf("attach %s to device %d: %w", h.program, ifindex, err)
	}
	return nil
}

func (a *attacher) tryAttachLocked(ifindex int, h hook) error {
	path := a.pins.link(ifindex, h.program)
	program := h.of(a.objects)
	have, err := link.LoadPinnedLink(path, nil)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		defer have.Close()
		on, err := attachedTo(have)
		if err != nil {
			return err
		}
		if on == ifindex {
			return have.Update(program)
		}
		// The device is gone, and this is another with the same index.
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return a.host.ns.Do(func() error {
		made, err := link.AttachTCX(link.TCXOptions{
			Interface: ifindex,
			Program:   program,
			Attach:    h.attach,
			Anchor:    link.Head(),
		})
		if errors.Is(err, ebpf.ErrNotSupported) {
			return &bpf.KernelError{Feature: "attachment of programs by tcx links", Minimum: "6.6", Err: err}
		}
		if err != nil {
			return err
		}
		defer made.Close()
		return made.Pin(path)
	})
}

// current says whether the program of this load runs at a device.
func (a *attacher) current(ifindex int, h hook) bool {
	l, err := link.LoadPinnedLink(a.pins.link(ifindex, h.program), nil)
	if err != nil {
		return false
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil || info.TCX() == nil || int(info.TCX().Ifindex) != ifindex {
		return false
	}
	have, err := h.of(a.objects).Info()
	if err != nil {
		return false
	}
	id, ok := have.ID()
	return ok && id == info.Program
}

// detach removes a program from a device; it is no error if it is not there. When it returns, no
// packet meets the program any more, but for those that are in it.
func (a *attacher) detach(ifindex int, h hook) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := unpinLink(a.pins.link(ifindex, h.program)); err != nil {
		return fmt.Errorf("detach %s from device %d: %w", h.program, ifindex, err)
	}
	return nil
}

// unpinLink detaches a pinned link and removes the pin. Removing the pin alone would detach it some
// time later.
func unpinLink(path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
		return err
	}
	return os.Remove(path)
}

// detachGone removes the pins of links whose device is gone.
func (a *attacher) detachGone() error {
	return a.eachLink(func(ifindex int, _ string, on int) bool { return on == ifindex })
}

// eachLink asks keep for every pinned link, with the device it is named after and the one it is
// attached to (0: none), and detaches those that are not to be kept.
func (a *attacher) eachLink(keep func(ifindex int, program string, on int) bool) error {
	entries, err := os.ReadDir(a.pins.links())
	if err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	for _, entry := range entries {
		if err := a.unpinUnless(entry.Name(), keep); err != nil {
			return fmt.Errorf("detach %s: %w", entry.Name(), err)
		}
	}
	return nil
}

// unpinUnless detaches one link that keep does not want; keep only looks at what it is given.
func (a *attacher) unpinUnless(name string, keep func(ifindex int, program string, on int) bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	path := filepath.Join(a.pins.links(), name)
	ifindex, program, ok := parseLink(name)
	if ok && keep(ifindex, program, pinnedTo(path)) {
		return nil
	}
	return unpinLink(path)
}

// pinnedTo is the index of the device of a pinned link, 0 if there is none.
func pinnedTo(path string) int {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return 0
	}
	defer l.Close()
	on, _ := attachedTo(l)
	return on
}

// attachedTo is the index of a link's device, 0 if the device is gone.
func attachedTo(l link.Link) (int, error) {
	info, err := l.Info()
	if err != nil {
		return 0, err
	}
	tcx := info.TCX()
	if tcx == nil {
		return 0, nil
	}
	return int(tcx.Ifindex), nil
}
