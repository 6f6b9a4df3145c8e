// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
)

// setting is one file below /proc/sys that the agent owns.
type setting struct {
	name string
	want string
}

// correction is a setting that had another value than weft needs.
type correction struct {
	name      string
	was, want string
}

func (c correction) String() string { return fmt.Sprintf("%s was %s, is %s", c.name, c.was, c.want) }

// forwarding makes the node forward. Families that are off are left alone.
func forwarding(h *host, cfg Config, u underlay) ([]correction, error) {
	var done []correction
	put := func(name, want string) error {
		c, err := correct(h, setting{name, want})
		done = append(done, c...)
		return err
	}
	if err := put("net/ipv4/ip_forward", "1"); err != nil {
		return done, err
	}
	if err := put("net/ipv4/conf/"+u.name+"/forwarding", "1"); err != nil {
		return done, err
	}
	for _, which := range []string{"all", "default", u.name} {
		if err := put("net/ipv4/conf/"+which+"/send_redirects", "0"); err != nil {
			return done, err
		}
	}
	c, err := looseReversePath(h, u.name)
	done = append(done, c...)
	if err != nil || !cfg.IPv6 {
		return done, err
	}
	// The order matters: the kernel forgets the routers it has learnt at the moment that forwarding
	// goes on, but for devices whose accept_ra is 2.
	c, err = keepRouterAdvertisements(h, u)
	done = append(done, c...)
	if err != nil {
		return done, err
	}
	return done, put("net/ipv6/conf/all/forwarding", "1")
}

// keepRouterAdvertisements sets accept_ra to 2 where it is 1: 1 means no once the node forwards.
func keepRouterAdvertisements(h *host, u underlay) ([]correction, error) {
	devices := []string{u.name}
	if have, err := h.ns.Sysctl("net/ipv6/conf/all/forwarding"); err == nil && have == "0" {
		links, err := h.nl.LinkList()
		if err != nil {
			return nil, fmt.Errorf("list devices: %w", err)
		}
		for _, l := range links {
			devices = append(devices, l.Attrs().Name)
		}
	}
	var done []correction
	for _, dev := range devices {
		name := "net/ipv6/conf/" + dev + "/accept_ra"
		have, err := h.ns.Sysctl(name)
		if errors.Is(err, fs.ErrNotExist) || (err == nil && have != "1") {
			continue
		}
		if err != nil {
			return done, err
		}
		c, err := correct(h, setting{name, "2"})
		done = append(done, c...)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// looseReversePath makes sure that the strict reverse path filter is off for a device: packets that
// leave a tunnel have sources which the route table expects elsewhere. The kernel takes the maximum
// of "all" and the device, so that 2 (loose) on the device wins over a strict "all".
func looseReversePath(h *host, device string) ([]correction, error) {
	effective := 0
	for _, which := range []string{"all", device} {
		s, err := h.ns.Sysctl("net/ipv4/conf/" + which + "/rp_filter")
		if err != nil {
			return nil, err
		}
		v, err := strconv.Atoi(s)
		if err != nil {
			return nil, fmt.Errorf("sysctl rp_filter of %s: %w", which, err)
		}
		effective = max(effective, v)
	}
	if effective != 1 {
		return nil, nil
	}
	return correct(h, setting{"net/ipv4/conf/" + device + "/rp_filter", "2"})
}

// quietDevice keeps the kernel from sending redirects, making addresses and checking sources on a
// device of weft.
func quietDevice(h *host, device string) error {
	for _, s := range []setting{
		{"net/ipv4/conf/" + device + "/forwarding", "1"}, // route lookups of programs ask for it
		{"net/ipv4/conf/" + device + "/send_redirects", "0"},
		{"net/ipv6/conf/" + device + "/addr_gen_mode", "1"}, // no link-local address
		{"net/ipv6/conf/" + device + "/accept_ra", "0"},
	} {
		if _, err := correct(h, s); err != nil {
			return err
		}
	}
	_, err := looseReversePath(h, device)
	return err
}

// correct writes a setting that differs and says what it was. What the kernel does not have, for
// instance because IPv6 is compiled out, needs no value.
func correct(h *host, s setting) ([]correction, error) {
	was, err := h.ns.Sysctl(s.name)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && was == s.want) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := h.ns.SetSysctl(s.name, s.want); err != nil {
		return nil, err
	}
	return []correction{{s.name, was, s.want}}, nil
}
