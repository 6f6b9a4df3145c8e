// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
)

// wireDefinition is the JSON form of a definition row, and of the file a person writes. A new member
// must mean nothing when it is absent.
type wireDefinition struct {
	Namespace   string               `json:"namespace"`
	Name        string               `json:"name"`
	Ports       []wireDefinitionPort `json:"ports"`
	Selector    map[string]string    `json:"selector,omitempty"`
	Backends    []wireBackend        `json:"backends,omitempty"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Labels      map[string]string    `json:"labels,omitempty"`
	VIPs        []string             `json:"vips,omitempty"`
}

type wireDefinitionPort struct {
	Name       string      `json:"name,omitempty"`
	Protocol   Protocol    `json:"protocol"`
	Port       uint16      `json:"port"`
	TargetPort *targetPort `json:"targetPort,omitempty"`
}

type wireBackend struct {
	Address  string            `json:"address"`
	Ports    map[string]uint16 `json:"ports,omitempty"`
	Hostname string            `json:"hostname,omitempty"`
	State    string            `json:"state,omitempty"`
}

// targetPort is a JSON number, or a string that names a port.
type targetPort struct {
	number uint16
	name   string
}

func (t targetPort) MarshalJSON() ([]byte, error) {
	if t.name != "" {
		return json.Marshal(t.name)
	}
	return strconv.AppendUint(nil, uint64(t.number), 10), nil
}

func (t *targetPort) UnmarshalJSON(b []byte) error {
	*t = targetPort{}
	if b[0] != '"' {
		return json.Unmarshal(b, &t.number)
	}
	if err := json.Unmarshal(b, &t.name); err != nil {
		return err
	}
	// People quote numbers. A port's name has a letter, so a number cannot be meant as one.
	if n, err := strconv.ParseUint(t.name, 10, 16); err == nil {
		t.number, t.name = uint16(n), ""
	}
	return nil
}

// Definitions returns the codec of the services defined in this cluster.
func Definitions() Codec[DefinitionKey, Definition] {
	return Codec[DefinitionKey, Definition]{
		Prefix:    DefinitionsPrefix,
		FormatKey: DefinitionKey.String,
		ParseKey: func(tail string) (DefinitionKey, error) {
			ns, name, err := parseNamespaced(tail)
			return DefinitionKey{Namespace: ns, Name: name}, err
		},
		Encode: encodeDefinition,
		Decode: decodeDefinition,
		Equal:  Definition.Equal,
	}
}

// ParseDefinition reads a definition whose key is not known yet: a file that a person wrote, as
// JSON.
func ParseDefinition(b []byte) (DefinitionKey, Definition, error) {
	var names struct{ Namespace, Name string }
	if err := decodeJSON("", b, &names); err != nil {
		return DefinitionKey{}, Definition{}, err
	}
	if names.Namespace == "" {
		names.Namespace = "default"
	}
	k := DefinitionKey(names)
	if _, _, err := parseNamespaced(k.String()); err != nil {
		return DefinitionKey{}, Definition{}, err
	}
	d, err := decodeDefinition(k, b)
	return k, d, err
}

func decodeDefinition(k DefinitionKey, b []byte) (Definition, error) {
	key := k.String()
	var w wireDefinition
	extra, err := decodeOwn(key, b, &w)
	if err != nil {
		return Definition{}, err
	}
	// The row repeats its key so that it can be read by itself; absent is not a contradiction.
	if (w.Namespace != "" && w.Namespace != k.Namespace) || (w.Name != "" && w.Name != k.Name) {
		return Definition{}, invalid(key, "row says %s/%s", w.Namespace, w.Name)
	}
	d := Definition{Selector: w.Selector, Annotations: w.Annotations, Labels: w.Labels, Extra: extra}
	for _, p := range w.Ports {
		port := ServicePort{Name: p.Name, Protocol: p.Protocol, Port: p.Port}
		if port.Protocol == AnyProtocol {
			port.Protocol = TCP
		}
		if p.TargetPort != nil {
			port.TargetPort, port.TargetName = p.TargetPort.number, p.TargetPort.name
		}
		d.Ports = append(d.Ports, port)
	}
	for _, wb := range w.Backends {
		backend := Backend{Ports: wb.Ports, Hostname: wb.Hostname}
		if backend.Addr, err = parseAddr(key, "backend", wb.Address); err != nil {
			return Definition{}, err
		}
		if backend.State, err = ParseEndpointState(wb.State); err != nil {
			return Definition{}, invalid(key, "%v", err)
		}
		d.Backends = append(d.Backends, backend)
	}
	if d.VIPs, err = parseAddrs(key, w.VIPs); err != nil {
		return Definition{}, err
	}
	if err := checkDefinition(d); err != nil {
		return Definition{}, invalid(key, "%v", err)
	}
	return d, nil
}

func encodeDefinition(k DefinitionKey, d Definition) ([]byte, error) {
	key := k.String()
	if err := checkDefinition(d); err != nil {
		return nil, invalid(key, "%v", err)
	}
	w := wireDefinition{
		Namespace: k.Namespace, Name: k.Name, Selector: d.Selector, Annotations: d.Annotations,
		Labels: d.Labels, VIPs: formatAddrs(d.VIPs),
	}
	for _, p := range d.Ports {
		port := wireDefinitionPort{Name: p.Name, Protocol: p.Protocol, Port: p.Port}
		if p.TargetPort != 0 || p.TargetName != "" {
			port.TargetPort = &targetPort{number: p.TargetPort, name: p.TargetName}
		}
		w.Ports = append(w.Ports, port)
	}
	for _, b := range d.Backends {
		wb := wireBackend{Address: b.Addr.String(), Ports: b.Ports, Hostname: b.Hostname}
		if b.State != EndpointReady {
			wb.State = b.State.String()
		}
		w.Backends = append(w.Backends, wb)
	}
	return encodeOwn(key, w, d.Extra)
}

// checkDefinition holds what reader and writer demand alike.
func checkDefinition(d Definition) error {
	if len(d.Ports) == 0 {
		return fmt.Errorf("service has no port")
	}
	names := make(map[string]bool, len(d.Ports))
	numbers := make(map[L4]bool, len(d.Ports))
	for _, p := range d.Ports {
		l4 := L4{Protocol: p.Protocol, Port: p.Port}
		switch {
		case p.Port == 0:
			return fmt.Errorf("port %q has no number", p.Name)
		case p.Protocol != TCP && p.Protocol != UDP && p.Protocol != SCTP:
			return fmt.Errorf("port %q: protocol %d is not known", p.Name, p.Protocol)
		case p.Name == "" && len(d.Ports) > 1:
			return fmt.Errorf("port %d has no name, and is not the only one", p.Port)
		case names[p.Name]:
			return fmt.Errorf("port name %q is there twice", p.Name)
		case numbers[l4]:
			return fmt.Errorf("port %d/%s is there twice", p.Port, p.Protocol)
		case p.TargetPort != 0 && p.TargetName != "":
			return fmt.Errorf("port %q has two targets, %d and %q", p.Name, p.TargetPort, p.TargetName)
		}
		names[p.Name], numbers[l4] = true, true
	}
	if len(d.Selector) > 0 && len(d.Backends) > 0 {
		return fmt.Errorf("service has a selector and explicit backends, want one of them")
	}
	seen := make(map[netip.Addr]bool, len(d.Backends))
	for _, b := range d.Backends {
		if err := checkAddrs("", []netip.Addr{b.Addr}); err != nil {
			return fmt.Errorf("backend %q cannot be one", b.Addr)
		}
		if seen[b.Addr] {
			return fmt.Errorf("backend %s is there twice", b.Addr)
		}
		seen[b.Addr] = true
		if b.State > EndpointTerminating {
			return fmt.Errorf("backend %s: state %d is not known", b.Addr, b.State)
		}
		for name, port := range b.Ports {
			if !names[name] || port == 0 {
				return fmt.Errorf("backend %s: port %q is not one of the service's or 0", b.Addr, name)
			}
		}
	}
	if err := checkAddrs("", d.VIPs); err != nil {
		return fmt.Errorf("virtual addresses %v: want at most one of each family, IPv4 first", d.VIPs)
	}
	return nil
}
