// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
)

// The structures of the programs at sockets, generated from lib/socket.h, where each field is
// explained.
type (
	Namespace   = sockNamespace
	SocketKey   = sockSocketKey
	SocketName  = sockSocketName
	SocketCount = sockSocketCount
)

// What the address in a SocketKey is.
const (
	SocketBackend = uint16(sockSocketAddressSOCKET_BACKEND) // a backend's, the value that of its service
	SocketService = uint16(sockSocketAddressSOCKET_SERVICE) // a service's, the value that of its backend
)

// Sockets are the programs that run when sockets connect, send, receive and ask for their peer, with
// the maps that only they have. Close them when done; what is pinned or attached stays in the kernel.
type Sockets struct {
	sockObjects
}

// LoadSockets loads the programs at sockets, which share the services of objects, with maps pinned
// under cfg.PinPath as Load has it. Errors are *KernelError, *RefusedError, *LayoutError, or name the step.
func LoadSockets(cfg Config, objects *Objects) (*Sockets, error) {
	if err := RequireSockets(); err != nil {
		return nil, fmt.Errorf("load programs at sockets: %w", err)
	}
	spec, err := SocketSpec(cfg)
	if err != nil {
		return nil, fmt.Errorf("load programs at sockets: %w", err)
	}
	sockets := new(Sockets)
	opts := &ebpf.CollectionOptions{
		Maps:            ebpf.MapOptions{PinPath: cfg.PinPath},
		MapReplacements: map[string]*ebpf.Map{sockMapFrontends: objects.Frontends, sockMapBackends: objects.Backends},
	}
	if err := spec.LoadAndAssign(&sockets.sockObjects, opts); err != nil {
		return nil, fmt.Errorf("load programs at sockets: %w", loadError(err, cfg.PinPath))
	}
	return sockets, nil
}

// SocketSpec is the collection as LoadSockets hands it to the kernel, the maps of services included,
// which are those of Spec.
func SocketSpec(cfg Config) (*ebpf.CollectionSpec, error) {
	spec, err := loadSock()
	if err != nil {
		return nil, err
	}
	for name, n := range map[string]uint32{
		sockMapFrontends: cfg.MaxFrontends, sockMapBackends: cfg.MaxBackends,
		sockMapNamespaces: cfg.EndpointSlots, sockMapSockets: cfg.MaxSockets,
	} {
		if n == 0 {
			return nil, fmt.Errorf("size of map %s: is zero", name)
		}
		spec.Maps[name].MaxEntries = n
	}
	if cfg.PinPath == "" {
		for _, m := range spec.Maps {
			m.Pinning = ebpf.PinNone
		}
	}
	return spec, nil
}

// SocketHook is a program and the call of sockets that it belongs to.
type SocketHook struct {
	Name    string // as in the object
	Attach  ebpf.AttachType
	Program *ebpf.Program
}

// Hooks are all programs at sockets. Those that name the peer come first: a socket that is given a backend
// is told the service's name from the beginning.
func (s *Sockets) Hooks() []SocketHook {
	return []SocketHook{
		{sockProgSockRecvmsg4, ebpf.AttachCGroupUDP4Recvmsg, s.SockRecvmsg4},
		{sockProgSockRecvmsg6, ebpf.AttachCGroupUDP6Recvmsg, s.SockRecvmsg6},
		{sockProgSockGetpeername4, ebpf.AttachCgroupInet4GetPeername, s.SockGetpeername4},
		{sockProgSockGetpeername6, ebpf.AttachCgroupInet6GetPeername, s.SockGetpeername6},
		{sockProgSockConnect4, ebpf.AttachCGroupInet4Connect, s.SockConnect4},
		{sockProgSockConnect6, ebpf.AttachCGroupInet6Connect, s.SockConnect6},
		{sockProgSockSendmsg4, ebpf.AttachCGroupUDP4Sendmsg, s.SockSendmsg4},
		{sockProgSockSendmsg6, ebpf.AttachCGroupUDP6Sendmsg, s.SockSendmsg6},
	}
}

// RequireSockets returns a *KernelError when the kernel has no programs at the sockets of a cgroup.
func RequireSockets() error {
	return socketsError(features.HaveProgramType(ebpf.CGroupSockAddr))
}

func socketsError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ebpf.ErrNotSupported):
		// Whose answer the calls are given is set by a helper of that version.
		return &KernelError{Feature: "programs at the sockets of a cgroup (CONFIG_CGROUP_BPF)", Minimum: "5.18", Err: err}
	}
	return fmt.Errorf("look for programs at the sockets of a cgroup: %w", err)
}
