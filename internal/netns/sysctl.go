// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// preset is what a new namespace needs to be a node or a pod: the kernel's defaults would redirect
// (send_redirects), hide packets that BPF delivered (rp_filter), delay IPv6 addresses (DAD), or run
// bridged packets through netfilter. "all" and "default" are both set because the kernel takes the
// maximum of all and the device for some, and copies default at creation for the others.
func preset() [][2]string {
	return [][2]string{
		{"net/ipv4/conf/all/send_redirects", "0"},
		{"net/ipv4/conf/default/send_redirects", "0"},
		{"net/ipv4/conf/all/rp_filter", "0"},
		{"net/ipv4/conf/default/rp_filter", "0"},
		{"net/ipv6/conf/all/accept_dad", "0"},
		{"net/ipv6/conf/default/accept_dad", "0"},
		{"net/ipv6/conf/all/accept_ra", "0"},
		{"net/ipv6/conf/default/accept_ra", "0"},
		{"net/bridge/bridge-nf-call-iptables", "0"},
		{"net/bridge/bridge-nf-call-ip6tables", "0"},
		{"net/bridge/bridge-nf-call-arptables", "0"},
	}
}

// prepare makes a new namespace usable.
func (n *NS) prepare() error {
	for _, p := range preset() {
		err := n.SetSysctl(p[0], p[1])
		// A kernel without bridge netfilter or without IPv6 lacks the file, and the trouble.
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return n.SetUp("lo")
}

// SetForwarding turns IPv4 and IPv6 forwarding on or off, for present and future devices.
func (n *NS) SetForwarding(on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	if err := n.SetSysctl("net/ipv4/ip_forward", value); err != nil {
		return err
	}
	for _, which := range []string{"all", "default"} {
		err := n.SetSysctl("net/ipv6/conf/"+which+"/forwarding", value)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// SetSysctl writes a setting of the namespace; name is a path below /proc/sys that starts with
// "net/". Dots are not separators: they occur in device names.
func (n *NS) SetSysctl(name, value string) error {
	path, err := sysctlPath(name)
	if err != nil {
		return err
	}
	return n.Do(func() error {
		// /proc/sys/net shows the namespace of the thread that opens it.
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("sysctl: %w", err)
		}
		defer f.Close()
		if _, err := f.WriteString(value); err != nil {
			return fmt.Errorf("sysctl: %w", err)
		}
		return nil
	})
}

// Sysctl reads a setting of the namespace, without the newline at its end.
func (n *NS) Sysctl(name string) (string, error) {
	path, err := sysctlPath(name)
	if err != nil {
		return "", err
	}
	var value string
	err = n.Do(func() error {
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("sysctl: %w", err)
		}
		value = strings.TrimSpace(string(b))
		return nil
	})
	return value, err
}

// sysctlPath refuses what does not belong to a network namespace: such a write would change the
// whole machine.
func sysctlPath(name string) (string, error) {
	clean := filepath.Clean(name)
	if !strings.HasPrefix(clean, "net/") {
		return "", fmt.Errorf("sysctl %q: not below net/", name)
	}
	return filepath.Join("/proc/sys", clean), nil
}
