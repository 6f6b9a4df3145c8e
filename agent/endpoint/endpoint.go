// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package endpoint is the life of the endpoints of one node: it gives them a
// slot, addresses, a device and an identity, keeps them on disk, and writes the
// rows that the datapath and the rest of the mesh see of them. It is not for what
// endpoints of other nodes are, nor for how a device is made (package datapath).
// Only package agent imports it.
package endpoint

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/weft-net/weft/kvstore/schema"
)

// ID numbers an endpoint on its node; it is also its slot in the datapath, 1 to 65535.
type ID uint16

// Name is what people call an endpoint; unique on its node.
type Name struct{ Namespace, Name string }

func (n Name) String() string { return n.Namespace + "/" + n.Name }

// Spec is what somebody asks for.
type Spec struct {
	Name           Name
	NetNS          string            // path of its network namespace
	Interface      string            // device inside; empty: eth0
	Labels         map[string]string // "<source>:<key>" to value
	NamedPorts     []schema.NamedPort
	ServiceAccount string
	Addresses      []netip.Addr // wanted ones, at most one per family; none: free ones
}

// Phase is how far the making of an endpoint has come. On disk it decides what a
// restart does: an endpoint that was being made or deleted is deleted.
//
//	creating --> live --> deleting --> (gone)
//	    +-------------------^
type Phase string

// The phases.
const (
	Creating Phase = "creating"
	Live     Phase = "live"
	Deleting Phase = "deleting"
)

// Endpoint is one workload of this node as the agent knows it. Values are never
// changed once they are in a table.
type Endpoint struct {
	ID             ID                   `json:"id"`
	Namespace      string               `json:"namespace"`
	Name           string               `json:"name"`
	NetNS          string               `json:"netns"`
	Interface      string               `json:"interface"`
	HostInterface  string               `json:"hostInterface,omitempty"`
	MAC            [6]byte              `json:"mac"`
	Addresses      []netip.Addr         `json:"addresses"` // IPv4 first
	Labels         map[string]string    `json:"labels,omitempty"`
	NamedPorts     []schema.NamedPort   `json:"namedPorts,omitempty"`
	ServiceAccount string               `json:"serviceAccount,omitempty"`
	Identity       uint32               `json:"identity,omitempty"`
	IdentityLabels string               `json:"identityLabels,omitempty"` // wire form of the set that Identity stands for
	Readiness      schema.EndpointState `json:"readiness"`                // as told from outside
	Phase          Phase                `json:"phase"`
	Created        time.Time            `json:"created"`

	// Reason says why it does not do what it should; not kept on disk.
	Reason string `json:"-"`
}

// FullName is its namespace and name.
func (e Endpoint) FullName() Name { return Name{e.Namespace, e.Name} }

// State is one word for people: the phase, what it waits for, or its readiness.
func (e Endpoint) State() string {
	switch {
	case e.Phase != Live:
		return string(e.Phase)
	case e.Identity == 0:
		return "waiting-for-identity"
	default:
		return e.Readiness.String()
	}
}

// Equal compares all fields.
func (e Endpoint) Equal(o Endpoint) bool {
	return e.ID == o.ID && e.Namespace == o.Namespace && e.Name == o.Name && e.NetNS == o.NetNS &&
		e.Interface == o.Interface && e.HostInterface == o.HostInterface && e.MAC == o.MAC &&
		slices.Equal(e.Addresses, o.Addresses) && maps.Equal(e.Labels, o.Labels) &&
		slices.Equal(e.NamedPorts, o.NamedPorts) && e.ServiceAccount == o.ServiceAccount &&
		e.Identity == o.Identity && e.IdentityLabels == o.IdentityLabels && e.Readiness == o.Readiness &&
		e.Phase == o.Phase && e.Created.Equal(o.Created) && e.Reason == o.Reason
}

// address returns the endpoint's address of a family, or the zero Addr.
func (e Endpoint) address(v6 bool) netip.Addr {
	for _, a := range e.Addresses {
		if a.Is6() == v6 {
			return a
		}
	}
	return netip.Addr{}
}

// A NotFoundError says that there is no such endpoint.
type NotFoundError struct{ What string }

func (e *NotFoundError) Error() string { return fmt.Sprintf("endpoint %s: not found", e.What) }

// An ExistsError says that an endpoint of that name is there and is another one.
type ExistsError struct {
	Name   Name
	Reason string
}

func (e *ExistsError) Error() string {
	return fmt.Sprintf("endpoint %v: exists already: %s", e.Name, e.Reason)
}

// A SpecError says what is wrong with what was asked for.
type SpecError struct{ Field, Reason string }

func (e *SpecError) Error() string { return fmt.Sprintf("%s: %s", e.Field, e.Reason) }

// A FullError says that the node has as many endpoints as it may have.
type FullError struct{ Limit int }

func (e *FullError) Error() string {
	return fmt.Sprintf("%d endpoints: the node may have no more", e.Limit)
}
