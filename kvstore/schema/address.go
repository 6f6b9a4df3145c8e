// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"math/bits"
	"net/netip"
	"strings"
)

// formatIP writes a prefix as the key of its ip row: an address alone, or prefix/length.
func formatIP(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// parseIP is the inverse of formatIP. An address with its full length is accepted too; other
// spellings are not, so that one address has one key.
func parseIP(s string) (netip.Prefix, error) {
	if strings.IndexByte(s, '/') < 0 {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, invalid(s, "not an address")
		}
		if err := checkAddr(s, a); err != nil {
			return netip.Prefix{}, err
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, invalid(s, "not a prefix")
	}
	if p.Addr().Is4In6() || p.String() != s {
		return netip.Prefix{}, invalid(s, "not the canonical form of a prefix")
	}
	if p != p.Masked() {
		return netip.Prefix{}, invalid(s, "prefix has host bits set")
	}
	return p, checkCovers(s, p)
}

// checkCovers refuses an IPv6 prefix around ::ffff:0:0/96, as ::/0 is: in the datapath's maps IPv4 addresses
// stand there, and it would be in force for all of them.
func checkCovers(key string, p netip.Prefix) error {
	if p.Addr().Is6() && p.Contains(netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff})) {
		return invalid(key, "%s has all IPv4 addresses in it: declare the IPv6 prefixes that are used, 2000::/3 for all that are routed", p)
	}
	return nil
}

// checkAddr refuses addresses in a form that the key or map of that address would not have.
func checkAddr(key string, a netip.Addr) error {
	switch {
	case a.Zone() != "":
		return invalid(key, "address has a zone")
	case a.Is4In6() || a.String() != key:
		return invalid(key, "not the canonical form of the address")
	}
	return nil
}

// parseAddr reads an address out of a value; an empty one is the zero Addr. IPv4 in its IPv6 form
// is IPv4.
func parseAddr(key, what, s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, invalid(key, "%s %q is not an address", what, s)
	}
	return a.Unmap(), nil
}

// formatAddr is the inverse of parseAddr.
func formatAddr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// wireCIDR is how the open schema writes a prefix.
type wireCIDR struct {
	IP   string
	Mask []byte // base64 in JSON; 4 or 16 bytes
}

// prefix parses a wireCIDR; host bits are kept, the caller decides what they mean.
func (c wireCIDR) prefix(key, what string) (netip.Prefix, error) {
	a, err := parseAddr(key, what, c.IP)
	if err != nil {
		return netip.Prefix{}, err
	}
	if !a.IsValid() {
		return netip.Prefix{}, invalid(key, "%s has no address", what)
	}
	n, ok := maskLen(a, c.Mask)
	if !ok {
		return netip.Prefix{}, invalid(key, "%s has the mask %x, which is none for %s", what, clip(string(c.Mask), 16), a)
	}
	p := netip.PrefixFrom(a, n)
	return p, checkCovers(key, p)
}

// maskLen returns the length of a contiguous mask. An IPv4 mask may be written with 16 bytes.
func maskLen(a netip.Addr, mask []byte) (int, bool) {
	if a.Is4() && len(mask) == 16 {
		mask = mask[12:]
	}
	if len(mask)*8 != a.BitLen() {
		return 0, false
	}
	n := 0
	for i, b := range mask {
		ones := bits.LeadingZeros8(^b)
		n += ones
		if ones == 8 {
			continue
		}
		if b<<ones != 0 {
			return 0, false
		}
		for _, rest := range mask[i+1:] {
			if rest != 0 {
				return 0, false
			}
		}
		break
	}
	return n, true
}

// cidrOf is the inverse of wireCIDR.prefix.
func cidrOf(p netip.Prefix) *wireCIDR {
	return &wireCIDR{IP: p.Addr().String(), Mask: maskOf(p)}
}

// maskOf returns the mask of a prefix, in the length of its family.
func maskOf(p netip.Prefix) []byte {
	mask := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return mask
}
