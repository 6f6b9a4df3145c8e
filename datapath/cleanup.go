// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
)

// CleanupConfig names the node that Cleanup removes.
type CleanupConfig struct {
	BPFRoot  string // empty: /sys/fs/bpf
	NodeName string
	// NetNS is the path of the node's network namespace, empty for the process's own. If it does
	// not exist any more, its devices and routes are gone with it.
	NetNS string
}

// Cleanup removes everything that a datapath of a node has made: programs, maps, devices and routes.
// Endpoints lose their network. Sysctls stay as they are. The agent of the node must not run. After
// an error it goes on with other devices and routes, but leaves the pins alone: a device that could
// not be deleted keeps its programs, without which its packets would meet the host's stack. It can be
// called again: pins need not be there. Devices are those of the namespace whatever the name, so who
// takes a name from a person asks PinnedNodes first.
func Cleanup(ctx context.Context, cfg CleanupConfig) error {
	if cfg.BPFRoot == "" {
		cfg.BPFRoot = DefaultConfig().BPFRoot
	}
	p := pinsOf(cfg.BPFRoot, cfg.NodeName)
	err := cleanupDevices(ctx, cfg.NetNS)
	if err == nil {
		err = cleanupPins(p)
	}
	if err != nil {
		return fmt.Errorf("clean up node %s: %w", cfg.NodeName, err)
	}
	return nil
}

func cleanupPins(p pins) error {
	errs := []error{unpinLinks(p.links()), unpinLinks(p.sockets()), removePins(string(p))}
	// The directory above is of all nodes of the machine: it goes with the last one.
	_ = os.Remove(filepath.Dir(string(p)))
	return errors.Join(errs...)
}

func cleanupDevices(ctx context.Context, path string) error {
	h, err := openHost(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer h.Close()
	links, err := h.nl.LinkList()
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	var errs []error
	for _, l := range links {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if !isOurs(l) {
			continue
		}
		if err := h.nl.LinkDel(l); err != nil && !notFound(err) {
			errs = append(errs, fmt.Errorf("delete device %s: %w", l.Attrs().Name, err))
		}
	}
	routes, err := ownRoutes(h)
	errs = append(errs, err)
	for _, r := range routes {
		errs = append(errs, r.remove(h))
	}
	return errors.Join(errs...)
}

// isOurs says whether a device was made by this package.
func isOurs(l netlink.Link) bool {
	switch a := l.Attrs(); a.Name {
	case hostDevice, netDevice:
		return l.Type() == "veth"
	case vxlanDevice:
		return l.Type() == "vxlan"
	default:
		return isEndpointDevice(l)
	}
}
