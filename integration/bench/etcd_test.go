// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"testing"
	"time"

	"github.com/weft-net/weft/kvstore"
)

// testStore is a store that ends with the test.
func testStore(t *testing.T) *store {
	t.Helper()
	s, err := startStore(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func testClient(t *testing.T, s *store, url string) *kvstore.Client {
	t.Helper()
	c, err := s.client(url)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestStore_GatesAndWipe(t *testing.T) {
	s := testStore(t)
	ask := func(command string) time.Time {
		t.Helper()
		at, err := s.ask(command)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	has := func(c *kvstore.Client) error {
		return wait(t.Context(), "the key", func() bool {
			_, ok, err := c.Get(t.Context(), "key")
			return ok && err == nil
		})
	}
	direct, ours, floor := testClient(t, s, s.URL), testClient(t, s, s.Ours), testClient(t, s, s.Floor)
	if _, err := direct.Put(t.Context(), "key", []byte("value"), 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*kvstore.Client{ours, floor} {
		if err := has(c); err != nil {
			t.Fatal(err)
		}
	}
	ask("shut ours")
	brief, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, _, err := ours.Get(brief, "key"); err == nil {
		t.Error("a shut gate let a client in")
	}
	if err := has(floor); err != nil {
		t.Errorf("the other gate: %v", err)
	}
	began := ask("open ours")
	if err := has(ours); err != nil {
		t.Fatal(err)
	}
	if first := ask("first ours"); first.Before(began) {
		t.Errorf("a client came in at %s, before the gate was opened at %s", first, began)
	}
	ask("wipe")
	err := wait(t.Context(), "an empty store", func() bool {
		_, ok, err := ours.Get(t.Context(), "key")
		return !ok && err == nil
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := s.ask("shut nothing"); err == nil {
		t.Error("a gate that is not there was shut")
	}
	if _, err := s.ask("first ours"); err != nil {
		t.Errorf("after a command that failed: %v", err)
	}
}
