// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// TestClient_Sticky asks two servers that differ: a sticky client sees one of them until that is away,
// then the other, and does not go back when the first one is there again.
func TestClient_Sticky(t *testing.T) {
	t.Parallel()
	servers := map[string]*kvstoretest.Server{}
	cfg := kvstore.DefaultConfig()
	cfg.RequestTimeout = time.Second
	for _, name := range []string{"one", "other"} {
		s := kvstoretest.Start(t, kvstoretest.Options{})
		s.Put(s.Client(), "who", name)
		servers[name] = s
		cfg.Endpoints = append(cfg.Endpoints, s.Endpoint())
	}
	ask := func(c *kvstore.Client) (who string, err error) {
		kv, _, err := c.Get(t.Context(), "who")
		return string(kv.Value), err
	}
	answers := func(c *kvstore.Client) (all []string) {
		t.Helper()
		for range 20 {
			who, err := ask(c)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(all, who) {
				all = append(all, who)
			}
		}
		return all
	}
	round := kvstoretest.NewClient(t, cfg)
	kvstoretest.Eventually(t, func() string { // both are connected
		if all := answers(round); len(all) != 2 {
			return all[0]
		}
		return ""
	})

	cfg.Sticky = true
	c := kvstoretest.NewClient(t, cfg)
	first := answers(c)
	if len(first) != 1 {
		t.Fatalf("a sticky client asked %v", first)
	}
	servers[first[0]].Kill()
	kvstoretest.Eventually(t, func() string {
		if who, err := ask(c); err != nil || who == first[0] {
			return who + errorText(err)
		}
		return ""
	})
	servers[first[0]].Restart()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := servers[first[0]].Client().Status(ctx); err != nil {
		t.Fatal(err)
	}
	if second := answers(c); len(second) != 1 || second[0] == first[0] {
		t.Errorf("once %s was back the client asked %v", first[0], second)
	}
}
