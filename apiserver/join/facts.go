// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore/schema"
)

// maxCIDRs is the most pod CIDRs that a cluster may name; neighbours are joined to one before.
const maxCIDRs = 1024

// Facts are what a cluster says of itself to one that it is to be a peer of.
type Facts struct {
	Name        string
	ID          uint32
	MaxClusters uint32         // 255 or 511
	Mode        string         // of the path between nodes: vxlan or native
	PodCIDRs    []netip.Prefix // in order, none inside another
	Endpoints   []string       // https URLs of its API servers
	Root        *x509.Certificate
}

// wireFacts is the form of Facts in a message.
type wireFacts struct {
	Name        string   `json:"name"`
	ID          uint32   `json:"id"`
	MaxClusters uint32   `json:"maxConnectedClusters"`
	Mode        string   `json:"mode"`
	PodCIDRs    []string `json:"podCIDRs,omitempty"`
	Endpoints   []string `json:"endpoints,omitempty"`
	Root        []byte   `json:"root"` // DER
}

func (f Facts) wire() wireFacts {
	w := wireFacts{
		Name: f.Name, ID: f.ID, MaxClusters: f.MaxClusters, Mode: f.Mode, Endpoints: f.Endpoints, Root: f.Root.Raw,
	}
	for _, p := range f.PodCIDRs {
		w.PodCIDRs = append(w.PodCIDRs, p.String())
	}
	return w
}

// facts reads what the other side said of itself. The error is meant for it.
func (w wireFacts) facts() (Facts, error) {
	f := Facts{Name: w.Name, ID: w.ID, MaxClusters: w.MaxClusters, Mode: w.Mode, Endpoints: w.Endpoints}
	if err := schema.CheckClusterName(f.Name); err != nil {
		return Facts{}, err
	}
	if err := schema.CheckClusterID(f.ID, f.MaxClusters); err != nil || f.MaxClusters == 0 {
		return Facts{}, fmt.Errorf("cluster id %d in a mesh of %d clusters", f.ID, f.MaxClusters)
	}
	if len(w.PodCIDRs) > maxCIDRs || len(w.Endpoints) > maxEndpoints {
		return Facts{}, fmt.Errorf("more than %d pod CIDRs or %d endpoints", maxCIDRs, maxEndpoints)
	}
	for _, text := range w.PodCIDRs {
		p, err := netip.ParsePrefix(text)
		if err != nil || p != p.Masked() || p.Addr().Is4In6() {
			return Facts{}, fmt.Errorf("pod CIDR %q is no prefix without host bits", clip(text, 64))
		}
		f.PodCIDRs = append(f.PodCIDRs, p)
	}
	for _, e := range w.Endpoints {
		if err := CheckURL(e); err != nil {
			return Facts{}, err
		}
	}
	var err error
	if f.Root, err = x509.ParseCertificate(w.Root); err != nil {
		return Facts{}, fmt.Errorf("its root: %w", err)
	}
	if err := trust.CheckRoot(f.Root); err != nil {
		return Facts{}, fmt.Errorf("its root: %w", err)
	}
	return f, nil
}

// CheckURL says why a text is not the URL of an API server.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Port() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		strings.Trim(u.Path, "/") != "" || checkHostPort(u.Host) != nil {
		return fmt.Errorf("endpoint %q is not an https URL with a port, like https://east.mesh.example:32379", clip(text, 64))
	}
	return nil
}

// v4 and v6 tell which families of addresses a cluster gives to its endpoints.
func (f Facts) families() (v4, v6 bool) {
	for _, p := range f.PodCIDRs {
		v4, v6 = v4 || p.Addr().Is4(), v6 || p.Addr().Is6()
	}
	return v4, v6
}

// aggregate joins prefixes to the fewest that cover the same addresses, in order.
func aggregate(prefixes []netip.Prefix) []netip.Prefix {
	sorted := slices.Clone(prefixes)
	for i, p := range sorted {
		sorted[i] = p.Masked()
	}
	slices.SortFunc(sorted, comparePrefixes)
	var out []netip.Prefix
	for _, p := range sorted {
		if n := len(out); n > 0 && covers(out[n-1], p) {
			continue
		}
		out = append(out, p)
		for n := len(out); n > 1; n = len(out) {
			a, b := out[n-2], out[n-1]
			if a.Bits() != b.Bits() || a.Bits() == 0 {
				break
			}
			both := netip.PrefixFrom(a.Addr(), a.Bits()-1).Masked()
			if !covers(both, b) {
				break
			}
			out = append(out[:n-2], both)
		}
	}
	return out
}

func covers(p, q netip.Prefix) bool { return p.Bits() <= q.Bits() && p.Overlaps(q) }

func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
