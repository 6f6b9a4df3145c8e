// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf"
)

// Config is what a node sets before its programs are loaded. The zero value of a field is not a
// default: start from DefaultConfig.
type Config struct {
	// PinPath is the directory in which maps are pinned by their names and found again. Empty: the
	// maps are private and end with the Objects.
	PinPath string

	EndpointIfindexBase uint32 // interface index of endpoint slot 0
	EndpointSlots       uint32 // number of slots, slot 0 included; at most 65536

	GatewayMAC   net.HardwareAddr // of every host-side endpoint device
	GatewayIPv4  netip.Addr       // what endpoints use as next hop
	GatewayIPv6  netip.Addr
	LoopbackIPv4 netip.Addr // source that an endpoint sees when it reaches itself through a service
	LoopbackIPv6 netip.Addr

	TunnelPort     uint16 // UDP port of VXLAN packets
	TunnelOverIPv4 bool   // VXLAN packets may arrive over IPv4
	TunnelOverIPv6 bool   // VXLAN packets may arrive over IPv6
	ReportEvents   bool   // new, closed and refused flows go to the events map

	// Numbers of entries of maps.
	MaxFlows, MaxYoungFlows   uint32
	MaxIPCache, MaxPrefixes   uint32
	MaxNodes                  uint32 // at most 65536
	MaxFrontends, MaxBackends uint32
	MaxFragments              uint32
	MaxSockets                uint32 // what sockets were given, two rows for each service an unconnected one sends to
	EventBytes                uint32 // size of the events buffer, a power of two of at least one page

	// TicksPerSecond is the kernel's CONFIG_HZ; 0: found by Load.
	TicksPerSecond uint32
}

// DefaultConfig is a Config for a node of ordinary size.
func DefaultConfig() Config {
	return Config{
		EndpointIfindexBase: 0x10000,
		EndpointSlots:       4096,
		GatewayMAC:          net.HardwareAddr{0x02, 'w', 'e', 'f', 't', 0x01},
		GatewayIPv4:         netip.AddrFrom4([4]byte{169, 254, 1, 1}),
		GatewayIPv6:         netip.MustParseAddr("fe80::1"),
		LoopbackIPv4:        netip.AddrFrom4([4]byte{169, 254, 42, 1}),
		LoopbackIPv6:        netip.MustParseAddr("fd57:6566:7400::1"),
		TunnelPort:          8472,
		TunnelOverIPv4:      true,
		TunnelOverIPv6:      true,
		ReportEvents:        true,
		MaxFlows:            512 << 10,
		MaxYoungFlows:       64 << 10,
		MaxIPCache:          512 << 10,
		MaxPrefixes:         64 << 10,
		MaxNodes:            8 << 10,
		MaxFrontends:        64 << 10,
		MaxBackends:         128 << 10,
		MaxFragments:        8 << 10,
		MaxSockets:          64 << 10,
		EventBytes:          4 << 20,
	}
}

// Validate names the first field that cannot work.
func (c Config) Validate() error {
	switch {
	case c.EndpointSlots < 2 || c.EndpointSlots > 65536:
		return fmt.Errorf("endpoint slots: %d is not in 2..65536", c.EndpointSlots)
	case c.EndpointIfindexBase == 0:
		return errors.New("endpoint ifindex base: is zero")
	case len(c.GatewayMAC) != 6:
		return fmt.Errorf("gateway MAC: %q is not 6 bytes", c.GatewayMAC)
	case !c.GatewayIPv4.Is4() || !c.LoopbackIPv4.Is4():
		return errors.New("gateway and loopback: an IPv4 address is missing")
	case !c.GatewayIPv6.Is6() || !c.LoopbackIPv6.Is6():
		return errors.New("gateway and loopback: an IPv6 address is missing")
	case c.TunnelPort == 0:
		return errors.New("tunnel port: is zero")
	case c.MaxNodes == 0 || c.MaxNodes > 65536:
		return fmt.Errorf("max nodes: %d is not in 1..65536", c.MaxNodes)
	case c.EventBytes < uint32(os.Getpagesize()) || c.EventBytes&(c.EventBytes-1) != 0:
		return fmt.Errorf("event bytes: %d is not a power of two of at least a page", c.EventBytes)
	}
	for name, n := range c.sizes() {
		if n == 0 {
			return fmt.Errorf("size of map %s: is zero", name)
		}
	}
	return nil
}

func (c Config) sizes() map[string]uint32 {
	return map[string]uint32{
		weftMapFlows: c.MaxFlows, weftMapFlowsYoung: c.MaxYoungFlows,
		weftMapEndpoints: c.EndpointSlots,
		weftMapIpcache:   c.MaxIPCache, weftMapIpcachePrefix: c.MaxPrefixes,
		weftMapNodes: c.MaxNodes, weftMapFrontends: c.MaxFrontends, weftMapBackends: c.MaxBackends,
		weftMapFragments: c.MaxFragments, weftMapEvents: c.EventBytes,
	}
}

// Objects are the loaded programs and maps, each a field. Close them when done; what is pinned or
// attached stays in the kernel.
type Objects struct {
	weftObjects
}

// Load checks the kernel, loads all programs and makes their maps, or takes those pinned under
// cfg.PinPath. Errors are *KernelError, *RefusedError, *LayoutError, or name the step.
func Load(cfg Config) (_ *Objects, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	if err := RequireTCX(); err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	if cfg.TicksPerSecond == 0 {
		if cfg.TicksPerSecond, err = ticksPerSecond(); err != nil {
			return nil, fmt.Errorf("load programs: find the clock's rate: %w", err)
		}
	}
	spec, err := Spec(cfg)
	if err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	objects := new(Objects)
	opts := &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: cfg.PinPath}}
	if err := spec.LoadAndAssign(&objects.weftObjects, opts); err != nil {
		return nil, fmt.Errorf("load programs: %w", loadError(err, cfg.PinPath))
	}
	return objects, nil
}

// Spec is the collection as Load hands it to the kernel: constants and sizes set.
func Spec(cfg Config) (*ebpf.CollectionSpec, error) {
	spec, err := loadWeft()
	if err != nil {
		return nil, err
	}
	var mac [6]byte
	copy(mac[:], cfg.GatewayMAC)
	constants := map[string]any{
		weftVarEndpointIfindexBase: cfg.EndpointIfindexBase, weftVarEndpointSlots: cfg.EndpointSlots,
		weftVarTicksPerSecond: cfg.TicksPerSecond,
		weftVarGatewayMac:     mac,
		weftVarGatewayIpv4:    Address(cfg.GatewayIPv4), weftVarGatewayIpv6: Address(cfg.GatewayIPv6),
		weftVarLoopbackIpv4: Address(cfg.LoopbackIPv4), weftVarLoopbackIpv6: Address(cfg.LoopbackIPv6),
		weftVarTunnelPort: cfg.TunnelPort, weftVarTunnelOverIpv4: cfg.TunnelOverIPv4,
		weftVarTunnelOverIpv6: cfg.TunnelOverIPv6, weftVarReportEvents: cfg.ReportEvents,
	}
	for name, value := range constants {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("constant %s: %w", name, err)
		}
	}
	for name, n := range cfg.sizes() {
		spec.Maps[name].MaxEntries = n
	}
	if cfg.PinPath == "" {
		for _, m := range spec.Maps {
			m.Pinning = ebpf.PinNone
		}
	}
	return spec, nil
}

// Now is the time of the flow table: the low 32 bits of the kernel's ticks.
func (o *Objects) Now() (uint32, error) { return readClock(o.ReadClock) }

func readClock(program *ebpf.Program) (uint32, error) {
	ticks, err := program.Run(&ebpf.RunOptions{Data: make([]byte, 64)})
	if err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	return ticks, nil
}

// ticksPerSecond measures CONFIG_HZ, which the kernel tells nobody: it counts ticks for a while
// and takes the value that kernels are built with which is nearest.
func ticksPerSecond() (uint32, error) {
	spec, err := loadWeft()
	if err != nil {
		return 0, err
	}
	program, err := ebpf.NewProgram(spec.Programs[weftProgReadClock])
	if err != nil {
		return 0, err
	}
	defer program.Close()
	first, err := readClock(program)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	const enough = 10 // ticks: an error of one in ten still tells the values apart
	for {
		time.Sleep(2 * time.Millisecond)
		last, err := readClock(program)
		if err != nil {
			return 0, err
		}
		if ticks := last - first; ticks >= enough {
			return nearestRate(float64(ticks) / time.Since(begin).Seconds()), nil
		}
	}
}

func nearestRate(measured float64) uint32 {
	best := uint32(100)
	for _, rate := range []uint32{250, 300, 1000} {
		if ratio(measured, float64(rate)) < ratio(measured, float64(best)) {
			best = rate
		}
	}
	return best
}

func ratio(a, b float64) float64 { return max(a/b, b/a) }
