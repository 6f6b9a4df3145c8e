// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// Modes of the path between nodes, as the agents have them.
const (
	modeVXLAN  = "vxlan"
	modeNative = "native"
)

// Join says how other clusters join this one, and how it joins others.
type Join struct {
	Listen    string   // address:port, open while a token is; empty: nobody joins by this replica
	Endpoints []string // host:port, where other clusters find it: what tokens say
	// PeerCACert and PeerCAKey are files of the authority that signs the readers of other clusters.
	PeerCACert, PeerCAKey string
	Mode                  string         // of the path between nodes, the same in all clusters: vxlan or native
	PodCIDRs              []netip.Prefix // the ranges that nodes get theirs from, beside those that they have
}

func (j Join) validate() error {
	if j.Listen != "" {
		if _, _, err := net.SplitHostPort(j.Listen); err != nil {
			return fmt.Errorf("join: listen: %q is not address:port, like :32380", j.Listen)
		}
	}
	for _, e := range j.Endpoints {
		if host, port, err := net.SplitHostPort(e); err != nil || host == "" || port == "" {
			return fmt.Errorf("join: endpoints: %q is not host:port, like east.mesh.example:32380", e)
		}
	}
	for _, p := range j.PodCIDRs {
		if !p.IsValid() || p != p.Masked() {
			return fmt.Errorf("join: pod-cidrs: %q is no prefix without host bits, like 10.1.0.0/16", p)
		}
	}
	if !slices.Contains([]string{modeVXLAN, modeNative}, j.Mode) {
		return fmt.Errorf("join: mode: %q is neither vxlan nor native", j.Mode)
	}
	if (j.PeerCACert == "") != (j.PeerCAKey == "") {
		return fmt.Errorf("join: peer-ca-cert and peer-ca-key: set both or none")
	}
	return nil
}

// joinFile is the YAML form of a Join: each field points at the setting that its key is for.
type joinFile struct {
	Listen     *string         `json:"listen"`
	Endpoints  *[]string       `json:"endpoints"`
	PeerCACert *string         `json:"peer-ca-cert"`
	PeerCAKey  *string         `json:"peer-ca-key"`
	Mode       *string         `json:"mode"`
	PodCIDRs   *[]netip.Prefix `json:"pod-cidrs"`
}

func joinFileOf(j *Join) *joinFile {
	return &joinFile{&j.Listen, &j.Endpoints, &j.PeerCACert, &j.PeerCAKey, &j.Mode, &j.PodCIDRs}
}
