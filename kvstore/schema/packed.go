// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// PackedWorkload is a Workload in one string, so that a row costs one small allocation and compares
// with ==. The zero value is the empty Workload.
type PackedWorkload struct {
	// text is metadata, namespace, name, service account, and per port name, protocol number and
	// port, with a NUL between each two.
	text string
}

// Pack returns the packed form. Text must not contain NUL; the codec refuses such rows. Ports are
// put in order of name.
func (w Workload) Pack() PackedWorkload {
	if w.Metadata == "" && w.Namespace == "" && w.Name == "" && w.ServiceAccount == "" && len(w.NamedPorts) == 0 {
		return PackedWorkload{}
	}
	ports := w.NamedPorts
	if !slices.IsSortedFunc(ports, comparePorts) {
		ports = slices.SortedFunc(slices.Values(ports), comparePorts)
	}
	n := len(w.Metadata) + len(w.Namespace) + len(w.Name) + len(w.ServiceAccount) + 3
	for _, p := range ports {
		n += len(p.Name) + 12
	}
	b := make([]byte, 0, n)
	b = append(b, w.Metadata...)
	b = append(append(b, 0), w.Namespace...)
	b = append(append(b, 0), w.Name...)
	b = append(append(b, 0), w.ServiceAccount...)
	for _, p := range ports {
		b = append(append(b, 0), p.Name...)
		b = strconv.AppendUint(append(b, 0), uint64(p.Protocol), 10)
		b = strconv.AppendUint(append(b, 0), uint64(p.Port), 10)
	}
	return PackedWorkload{text: string(b)}
}

func comparePorts(a, b NamedPort) int {
	return comparePort(a.Name, L4{a.Protocol, a.Port}, b.Name, L4{b.Protocol, b.Port})
}

func comparePort[T string | []byte](a T, al L4, b T, bl L4) int {
	return cmp.Or(
		strings.Compare(string(a), string(b)), cmp.Compare(al.Protocol, bl.Protocol), cmp.Compare(al.Port, bl.Port),
	)
}

// field returns the i-th part.
func (p PackedWorkload) field(i int) string {
	rest := p.text
	for ; i > 0; i-- {
		_, rest, _ = strings.Cut(rest, "\x00")
	}
	f, _, _ := strings.Cut(rest, "\x00")
	return f
}

// Metadata returns the writer's opaque text.
func (p PackedWorkload) Metadata() string { return p.field(0) }

// Namespace returns the endpoint's namespace.
func (p PackedWorkload) Namespace() string { return p.field(1) }

// Name returns the endpoint's name.
func (p PackedWorkload) Name() string { return p.field(2) }

// ServiceAccount returns the endpoint's service account.
func (p PackedWorkload) ServiceAccount() string { return p.field(3) }

// NamedPorts returns the endpoint's named ports in order of name.
func (p PackedWorkload) NamedPorts() []NamedPort { return p.Unpack().NamedPorts }

// Unpack returns all parts.
func (p PackedWorkload) Unpack() Workload {
	if p.text == "" {
		return Workload{}
	}
	parts := strings.Split(p.text, "\x00")
	w := Workload{Metadata: parts[0], Namespace: parts[1], Name: parts[2], ServiceAccount: parts[3]}
	for ports := parts[4:]; len(ports) >= 3; ports = ports[3:] {
		proto, err1 := strconv.ParseUint(ports[1], 10, 8)
		port, err2 := strconv.ParseUint(ports[2], 10, 16)
		if err1 != nil || err2 != nil {
			continue // only a Workload with NULs in its names, which no codec lets pass
		}
		w.NamedPorts = append(w.NamedPorts, NamedPort{Name: ports[0], Port: uint16(port), Protocol: Protocol(proto)})
	}
	return w
}

// MarshalJSON writes the unpacked form, for people.
func (p PackedWorkload) MarshalJSON() ([]byte, error) { return json.Marshal(p.Unpack()) }
