// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/weft-net/weft/datapath"
)

// kernel is the outside of a Manager in memory: devices and identities, each with
// an error to give instead.
type kernel struct {
	mu         sync.Mutex
	devices    map[uint16]string // slot to name
	numbers    map[string]uint32
	references map[string]int

	failAdd, failDelete, failIdentity, failWait error
}

func newKernel() *kernel {
	return &kernel{devices: map[uint16]string{}, numbers: map[string]uint32{}, references: map[string]int{}}
}

func (k *kernel) AddEndpoint(_ context.Context, s datapath.EndpointSpec) (datapath.EndpointDevice, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failAdd != nil {
		return datapath.EndpointDevice{}, k.failAdd
	}
	k.devices[s.Slot] = s.Name
	return datapath.EndpointDevice{IfName: fmt.Sprintf("lxc%d", s.Slot), MAC: [6]byte{2, 0, 0, 0, 0, byte(s.Slot)}}, nil
}

func (k *kernel) DeleteEndpoint(_ context.Context, slot uint16) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failDelete != nil {
		return k.failDelete
	}
	delete(k.devices, slot)
	return nil
}

func (k *kernel) WaitEndpoint(context.Context, uint16) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failWait
}

func (k *kernel) Acquire(ctx context.Context, e Endpoint) (uint32, string, error) {
	k.mu.Lock()
	fail := k.failIdentity
	k.mu.Unlock()
	if fail != nil {
		<-ctx.Done()
		return 0, "", fail
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	set := labelSet(e)
	if k.numbers[set] == 0 {
		k.numbers[set] = 65536 + uint32(len(k.numbers))
	}
	k.references[set]++
	return k.numbers[set], set, nil
}

func (k *kernel) Known(e Endpoint) (uint32, string, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	set := labelSet(e)
	return k.numbers[set], set, k.numbers[set] != 0
}

func labelSet(e Endpoint) string {
	set := ""
	for _, key := range slices.Sorted(maps.Keys(e.Labels)) {
		set += key + "=" + e.Labels[key] + ";"
	}
	return set
}

func (k *kernel) Release(set string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.references[set]--; k.references[set] == 0 {
		delete(k.references, set)
	}
}

func (k *kernel) exists(device string) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for slot := range k.devices {
		if device == fmt.Sprintf("lxc%d", slot) {
			return true, nil
		}
	}
	return false, nil
}

func (k *kernel) set(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}
