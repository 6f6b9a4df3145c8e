// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestRun_EndsUnderItsUsers ends Run while others are in the middle of every call that works with
// maps or sockets: none of them meets a closed file.
func TestRun_EndsUnderItsUsers(t *testing.T) {
	n := testLonely(t, "users", ModeVXLAN)
	reg := prometheus.NewRegistry()
	n.reg = reg
	n.start()
	pod := testNS(t, "users-e1")
	spec := EndpointSpec{Slot: 1, Name: "e1", NetNSPath: pod.Path(), IPv4: addr("10.0.1.11")}

	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	var wg sync.WaitGroup
	started := make(chan struct{})
	users := []func() error{
		func() error {
			for _, l := range n.d.Status() {
				if l.Name == "events" && l.State == Fail || l.Name == "events" && l.Reason != "" {
					return errors.New("events: " + l.Reason)
				}
			}
			return nil
		},
		func() error {
			families, err := reg.Gather()
			if err == nil && len(families) > 0 && len(families) < 5 {
				err = errors.New("metrics are missing")
			}
			return err
		},
		func() error {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return n.d.ReadEvents(ctx, func(Event) error { return nil })
		},
		func() error {
			if _, err := n.d.AddEndpoint(ctx, spec); err != nil {
				return err
			}
			return n.d.DeleteEndpoint(ctx, spec.Slot)
		},
	}
	for i, use := range users {
		wg.Go(func() {
			for first := true; ; first = false {
				err := use()
				if err != nil && !errors.Is(err, errStopped) && !errors.Is(err, context.Canceled) {
					t.Errorf("user %d: %v", i, err)
					err = errStopped
				}
				if first {
					started <- struct{}{}
				}
				if _, done, ok := n.d.use(); ok {
					done()
				} else if !first || err != nil {
					return
				}
			}
		})
	}
	for range users {
		<-started
	}
	n.stop()
	wg.Wait()
	if _, err := n.d.AddEndpoint(ctx, spec); !errors.Is(err, errStopped) {
		t.Errorf("after the end: %v, want %v", err, errStopped)
	}
}

// TestRun_WaitsForUsers: maps stay open until the last user has finished.
func TestRun_WaitsForUsers(t *testing.T) {
	n := testLonely(t, "last", ModeNative)
	n.start()
	e, done, ok := n.d.use()
	if !ok {
		t.Fatal("not ready")
	}
	stopped := make(chan struct{})
	go func() {
		n.stop()
		close(stopped)
	}()
	<-e.ended
	select {
	case <-stopped:
		t.Error("Run returned under a user")
	default:
	}
	if _, err := readLost(e.objects.EventsLost); err != nil {
		t.Errorf("while in use: %v", err)
	}
	done()
	<-stopped
	if _, err := readLost(e.objects.EventsLost); err == nil {
		t.Error("maps are open after the end")
	}
}
