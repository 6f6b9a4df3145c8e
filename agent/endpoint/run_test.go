// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package endpoint

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// running runs a manager until the function it returns is called.
func running(t *testing.T, m *Manager) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestManager_WaitsForIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		k.failIdentity = errors.New("store is away")
		m := newManager(t, t.TempDir(), k)
		ctx := t.Context()
		defer running(t, m)()
		e, err := m.Add(ctx, spec("web", "k8s:app=web"))
		if err != nil || e.State() != "waiting-for-identity" || !strings.Contains(e.Reason, "store is away") {
			t.Errorf("got %s %q %v", e.State(), e.Reason, err)
		}
		if v := view(m, k); v["published"] != nil || !slices.Equal(v["local"], []string{"1 0 lxc1"}) {
			t.Errorf("seen by others without identity: %v", v)
		}
		k.set(func() { k.failIdentity = nil })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := view(m, k)["published"]; !slices.Equal(got, []string{"a1/1 65536 ready"}) {
			t.Errorf("published %v", got)
		}
	})
}

func TestManager_FailedDeleteIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		m := newManager(t, t.TempDir(), k)
		ctx := t.Context()
		defer running(t, m)()
		if _, err := m.Add(ctx, spec("web")); err != nil {
			t.Fatal(err)
		}
		k.set(func() { k.failDelete = errors.New("busy") })
		if _, err := m.Delete(ctx, 1, Name{}); err == nil {
			t.Error("delete did not fail")
		}
		if v := view(m, k); v["published"] != nil || v["local"] != nil {
			t.Errorf("still seen by others: %v", v)
		}
		k.set(func() { k.failDelete = nil })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if d := cmp.Diff(map[string][]string{}, view(m, k)); d != "" {
			t.Errorf("left behind: %s", d)
		}
	})
}

func TestManager_DeviceGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		m := newManager(t, t.TempDir(), k)
		ctx := t.Context()
		defer running(t, m)()
		if _, err := m.Add(ctx, spec("web")); err != nil {
			t.Fatal(err)
		}
		k.set(func() { k.devices = map[uint16]string{} })
		time.Sleep(time.Minute)
		synctest.Wait()
		if d := cmp.Diff(map[string][]string{}, view(m, k)); d != "" {
			t.Errorf("left behind: %s", d)
		}
	})
}

// One failure after the number came does not leave an endpoint waiting for ever.
func TestManager_WaitingOneIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel()
		k.failIdentity = errors.New("store is away")
		m := newManager(t, t.TempDir(), k)
		if e, err := m.Add(t.Context(), spec("web", "k8s:app=web")); err != nil || e.Identity != 0 {
			t.Fatalf("%d %v", e.Identity, err)
		}
		k.failIdentity, k.failWait = nil, errors.New("not taken")
		if !m.work(t.Context()) {
			t.Error("work did not fail")
		}
		if v := view(m, k); v["references"] != nil || v["published"] != nil || !slices.Equal(v["local"], []string{"1 0 lxc1"}) {
			t.Errorf("after the failure: %v", v)
		}
		k.failWait = nil
		if m.work(t.Context()) {
			t.Error("work failed")
		}
		if d := cmp.Diff(oneEndpoint(65536, "ready"), view(m, k)); d != "" {
			t.Error(d)
		}
	})
}
