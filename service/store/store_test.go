// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	web   = schema.DefinitionKey{Namespace: "default", Name: "web"}
	cidr4 = netip.MustParsePrefix("10.96.0.0/28")
	cidr6 = netip.MustParsePrefix("fd00:96::/112")
)

func parsed(key schema.DefinitionKey, vips ...string) service.Parsed {
	p := service.Parsed{Key: key, Allocate: vips == nil, Definition: schema.Definition{
		Ports:    []schema.ServicePort{{Protocol: schema.TCP, Port: 80}},
		Selector: map[string]string{"app": key.Name},
	}}
	for _, v := range vips {
		p.Definition.VIPs = append(p.Definition.VIPs, netip.MustParseAddr(v))
	}
	return p
}

// rows reads what stands under a prefix, as key to value.
func rows(t *testing.T, c *kvstore.Client, prefix string) map[string]string {
	t.Helper()
	l, err := c.List(t.Context(), prefix, kvstore.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, kv := range l.KVs {
		out[strings.TrimPrefix(kv.Key, prefix)] = string(kv.Value)
	}
	return out
}

func TestAdd_HoldsAddressesWithTheDefinition(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	ctx := t.Context()

	first, err := Add(ctx, c, parsed(web), []netip.Prefix{cidr4, cidr6})
	if err != nil {
		t.Fatal(err)
	}
	if len(first.VIPs) != 2 || !cidr4.Contains(first.VIPs[0]) || !cidr6.Contains(first.VIPs[1]) {
		t.Fatalf("addresses %v", first.VIPs)
	}
	holds := func(want ...netip.Addr) {
		t.Helper()
		var got []string
		for k, v := range rows(t, c, schema.VIPsPrefix) {
			if v != `{"namespace":"default","name":"web"}` {
				t.Errorf("%s: %s", k, v)
			}
			got = append(got, k)
		}
		var text []string
		for _, a := range want {
			text = append(text, a.String())
		}
		if diff := cmp.Diff(text, got, cmpopts.SortSlices(strings.Compare), cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	}
	holds(first.VIPs...)

	// Again: the addresses stay.
	again, err := Add(ctx, c, parsed(web), []netip.Prefix{cidr4, cidr6})
	if err != nil || !slices.Equal(again.VIPs, first.VIPs) {
		t.Fatalf("added again: %v, %v", again.VIPs, err)
	}
	// A member of a newer version survives.
	row := rows(t, c, schema.DefinitionsPrefix)["default/web"]
	s.Put(c, schema.DefinitionsPrefix+"default/web", strings.TrimSuffix(row, "}")+`,"colour":"red"}`)
	// Given ones replace them, and what is not held any more is given back.
	if _, err := Add(ctx, c, parsed(web, "10.96.0.99"), nil); err != nil {
		t.Fatal(err)
	}
	holds(netip.MustParseAddr("10.96.0.99"))
	if got := rows(t, c, schema.DefinitionsPrefix)["default/web"]; !strings.Contains(got, `"colour":"red"`) {
		t.Errorf("the member is gone: %s", got)
	}
	// Somebody else's is refused, and nothing is written.
	var taken *TakenError
	_, err = Add(ctx, c, parsed(schema.DefinitionKey{Namespace: "prod", Name: "db"}, "10.96.0.99"), nil)
	if !errors.As(err, &taken) || taken.By != web {
		t.Errorf("taken: %v", err)
	}
	if got := rows(t, c, schema.DefinitionsPrefix); len(got) != 1 {
		t.Errorf("definitions %v", got)
	}
	// Headless.
	p := parsed(web)
	p.Allocate = false
	if _, err := Add(ctx, c, p, []netip.Prefix{cidr4}); err != nil {
		t.Fatal(err)
	}
	holds()
	if _, err := Add(ctx, c, parsed(web), []netip.Prefix{cidr4}); err != nil {
		t.Fatal(err)
	}
	if found, err := Delete(ctx, c, web); err != nil || !found {
		t.Fatalf("delete: %v, %v", found, err)
	}
	if found, err := Delete(ctx, c, web); err != nil || found {
		t.Fatalf("delete again: %v, %v", found, err)
	}
	if left := rows(t, c, schema.WeftPrefix); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestAdd_ManyAtOnce adds as many services as there are addresses, from several writers that do not
// know each other, and finds each address once.
func TestAdd_ManyAtOnce(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	const writers, most = 4, 14 // a /28 has 14
	var wg sync.WaitGroup
	errs := make([]error, most)
	for w := range writers {
		wg.Go(func() {
			for i := w; i < most; i += writers {
				key := schema.DefinitionKey{Namespace: "default", Name: fmt.Sprint("svc", i)}
				_, errs[i] = Add(context.Background(), c, parsed(key), []netip.Prefix{cidr4})
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if got := rows(t, c, schema.VIPsPrefix); len(got) != most {
		t.Errorf("%d addresses for %d services: %v", len(got), most, got)
	}
	_, err := Add(t.Context(), c, parsed(web), []netip.Prefix{cidr4})
	if err == nil || !strings.Contains(err.Error(), "all are in use") {
		t.Errorf("one more: %v", err)
	}
}

func TestAdd_CIDRs(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	if _, err := Add(t.Context(), c, parsed(web), nil); !errors.Is(err, ErrNoCIDR) {
		t.Errorf("no CIDR: %v", err)
	}
	// The second of a family is for when the first is full.
	small := netip.MustParsePrefix("10.97.0.1/32")
	one, err := Add(t.Context(), c, parsed(web), []netip.Prefix{small, cidr4})
	if err != nil || len(one.VIPs) != 1 || !small.Contains(one.VIPs[0]) {
		t.Errorf("first: %v, %v", one.VIPs, err)
	}
	two, err := Add(t.Context(), c, parsed(schema.DefinitionKey{Namespace: "default", Name: "db"}), []netip.Prefix{small, cidr4})
	if err != nil || len(two.VIPs) != 1 || !cidr4.Contains(two.VIPs[0]) {
		t.Errorf("second: %v, %v", two.VIPs, err)
	}
}

// TestAdd_UnreadableRows covers what somebody else wrote: an address row that makes no sense still
// holds its address, and a definition that makes none is replaced.
func TestAdd_UnreadableRows(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	s.Put(c, schema.VIPsPrefix+"10.96.0.5", "{")
	s.Put(c, schema.VIPsPrefix+"nonsense", "{}")
	s.Put(c, schema.DefinitionsPrefix+"default/web", "\xff")
	var taken *TakenError
	if _, err := Add(t.Context(), c, parsed(web, "10.96.0.5"), nil); !errors.As(err, &taken) {
		t.Errorf("got %v", err)
	}
	if _, err := Add(t.Context(), c, parsed(web, "10.96.0.6"), nil); err != nil {
		t.Error(err)
	}
}

func TestStartOf_StaysInside(t *testing.T) {
	for i := range 300 {
		key := schema.DefinitionKey{Namespace: "default", Name: fmt.Sprint(i)}
		for _, p := range []netip.Prefix{cidr4, cidr6, netip.MustParsePrefix("10.96.0.7/32"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/20")} {
			if a := startOf(key, p); !p.Contains(a) {
				t.Fatalf("%s is outside %s", a, p)
			}
		}
	}
}
