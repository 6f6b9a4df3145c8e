// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// pins is where the objects of one node live in the BPF file system:
//
//	<root>/weft/<node>/maps<n>/<map>         the highest n counts; the others are of older layouts
//	<root>/weft/<node>/links/<device>_<program>
//	<root>/weft/<node>/sockets/<program>     links to a cgroup
type pins string

// pinsOf is the directory of a node. The BPF file system refuses names with a dot.
func pinsOf(root, node string) pins {
	return pins(filepath.Join(root, "weft", strings.NewReplacer("%", "%25", ".", "%2e").Replace(node)))
}

// PinnedNodes lists the nodes of this machine that have pins below the root of a BPF file system.
func PinnedNodes(root string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(root, "weft"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("pins: %w", err)
	}
	var nodes []string
	for _, e := range entries {
		nodes = append(nodes, strings.NewReplacer("%25", "%", "%2e", ".").Replace(e.Name()))
	}
	slices.Sort(nodes)
	return nodes, nil
}

func (p pins) links() string { return filepath.Join(string(p), "links") }

func (p pins) sockets() string { return filepath.Join(string(p), "sockets") }

func (p pins) maps(version int) string {
	return filepath.Join(string(p), "maps"+strconv.Itoa(version))
}

// link is the pin of a program's link to a device.
func (p pins) link(ifindex int, program string) string {
	return filepath.Join(p.links(), strconv.Itoa(ifindex)+"_"+program)
}

// parseLink is the reverse of link for the last element of its path.
func parseLink(name string) (ifindex int, program string, ok bool) {
	index, program, ok := strings.Cut(name, "_")
	if !ok {
		return 0, "", false
	}
	ifindex, err := strconv.Atoi(index)
	return ifindex, program, err == nil && ifindex > 0
}

// isBPFFS says what is wrong if root is no BPF file system. Where none is mounted there is only an
// empty directory, which looks like a node without pins.
func isBPFFS(root string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return fmt.Errorf("bpf file system %s: %w", root, err)
	}
	if st.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("bpf file system %s: none is mounted there; do it with mount -t bpf bpf %s", root, root)
	}
	return nil
}

// make creates the directories.
func (p pins) make(root string) error {
	if err := isBPFFS(root); err != nil {
		return err
	}
	if err := os.MkdirAll(p.links(), 0o700); err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	return nil
}

// versions lists the map directories that are there, ascending.
func (p pins) versions() ([]int, error) {
	entries, err := os.ReadDir(string(p))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("pins: %w", err)
	}
	var found []int
	for _, e := range entries {
		if n, ok := strings.CutPrefix(e.Name(), "maps"); ok {
			if v, err := strconv.Atoi(n); err == nil && v > 0 {
				found = append(found, v)
			}
		}
	}
	slices.Sort(found)
	return found, nil
}

// remove deletes a directory of pins with everything in it. What nothing else holds is freed.
func removePins(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	return nil
}
