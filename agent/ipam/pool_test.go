// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestPool_GoesRound(t *testing.T) {
	p := New(Config{Prefix: netip.MustParsePrefix("10.0.0.0/29"), Reserved: []netip.Addr{addr("10.0.0.3")}})
	var got []string
	for range 4 {
		a, err := p.Allocate()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, a.String())
	}
	if d := cmp.Diff([]string{"10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"}, got); d != "" {
		t.Error(d)
	}
	_, err := p.Allocate()
	var full *ExhaustedError
	if !errors.As(err, &full) || full.Used != 4 || full.Prefix != p.Prefix() {
		t.Fatalf("got %v, want an ExhaustedError with 4 used", err)
	}
	p.Release(addr("10.0.0.4"))
	p.Release(addr("10.0.0.2"))
	if a, err := p.Allocate(); err != nil || a != addr("10.0.0.2") {
		t.Errorf("got %v %v, want the one after the last", a, err)
	}
}

func TestPool_IPv6HasNoBroadcast(t *testing.T) {
	p := New(Config{Prefix: netip.MustParsePrefix("fd00::/126")})
	for _, want := range []string{"fd00::2", "fd00::3"} {
		if a, err := p.Allocate(); err != nil || a != addr(want) {
			t.Fatalf("got %v %v, want %s", a, err, want)
		}
	}
	if got := New(Config{Prefix: netip.MustParsePrefix("fd00::/64")}).Free(); got != -1 {
		t.Errorf("free of a /64: got %d, want -1", got)
	}
}

func TestPool_LastAddressOfAll(t *testing.T) {
	p := New(Config{Prefix: netip.MustParsePrefix("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126")})
	for range 2 {
		if _, err := p.Allocate(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Allocate(); err == nil {
		t.Error("got an address beyond the last")
	}
}

func TestPool_Take(t *testing.T) {
	p := New(Config{Prefix: netip.MustParsePrefix("10.0.0.0/29")})
	for a, want := range map[string]string{
		"10.0.0.0": "is the network's own", "10.0.0.1": "is the node's own, the gateway of endpoints",
		"10.0.0.7": "is the network's broadcast", "10.0.1.2": "is outside of the node's 10.0.0.0/29", "10.0.0.5": "",
	} {
		var e *AddressError
		got := ""
		if errors.As(p.Take(addr(a)), &e) {
			got = e.Reason
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", a, got, want)
		}
	}
	if err := p.Take(addr("10.0.0.5")); err == nil {
		t.Error("took one address twice")
	}
}

func TestPool_ReleasedRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Config{Prefix: netip.MustParsePrefix("10.0.0.0/30"), Rest: time.Minute})
		a, err := p.Allocate()
		if err != nil {
			t.Fatal(err)
		}
		p.Release(a)
		var full *ExhaustedError
		if _, err := p.Allocate(); !errors.As(err, &full) || full.Resting != 1 || full.Next != time.Now().Add(time.Minute) {
			t.Fatalf("got %v, want an ExhaustedError with one resting", err)
		}
		if err := p.Take(a); err != nil {
			t.Fatalf("take of a resting one: %v", err)
		}
		p.Release(a)
		time.Sleep(time.Minute)
		if b, err := p.Allocate(); err != nil || b != a {
			t.Fatalf("got %v %v after the rest, want %v", b, err, a)
		}
	})
}

// TestPool_Model compares the pool with a naive one under random calls.
func TestPool_Model(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) { model(t, seed) })
	}
}

func model(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	const restTime = 10 * time.Second
	prefix := netip.MustParsePrefix("10.0.0.0/28")
	p := New(Config{Prefix: prefix, Rest: restTime})
	used, freed := map[netip.Addr]bool{}, map[netip.Addr]time.Time{}
	any := func() netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(17))}) }
	for step := range 3000 {
		resting := func(a netip.Addr) bool {
			at, ok := freed[a]
			return ok && !used[a] && time.Since(at) < restTime
		}
		switch r.IntN(6) {
		case 0, 1, 2:
			want := 13
			for a := prefix.Addr(); prefix.Contains(a); a = a.Next() {
				if used[a] || resting(a) {
					want--
				}
			}
			if got := p.Free(); got != want {
				t.Fatalf("seed %d step %d: free %d, want %d", seed, step, got, want)
			}
			a, err := p.Allocate()
			if (err == nil) != (want > 0) {
				t.Fatalf("seed %d step %d: %v with %d free", seed, step, err, want)
			}
			if err == nil {
				last := byte(a.As4()[3])
				if used[a] || resting(a) || last < 2 || last > 14 {
					t.Fatalf("seed %d step %d: handed out %v", seed, step, a)
				}
				used[a] = true
			}
		case 3:
			a := any()
			n := a.As4()[3]
			want := !used[a] && n >= 2 && n <= 14
			if err := p.Take(a); (err == nil) != want {
				t.Fatalf("seed %d step %d: take %v: %v", seed, step, a, err)
			}
			if want {
				used[a] = true
			}
		case 4:
			a := any()
			p.Release(a)
			if used[a] {
				delete(used, a)
				freed[a] = time.Now()
			}
		case 5:
			time.Sleep(time.Duration(r.IntN(4)) * time.Second)
		}
		if got := p.Used(); got != len(used) {
			t.Fatalf("seed %d step %d: used %d, want %d", seed, step, got, len(used))
		}
	}
}
