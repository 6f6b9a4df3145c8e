// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
)

// fuzz checks of any bytes under any key: no panic, refusals are *InvalidError, and what is accepted
// is written again and read back as the same.
func fuzz[K comparable, V any](f *testing.F, c Codec[K, V], tail, glob string) {
	files, err := filepath.Glob(filepath.Join("testdata", "golden", glob))
	if err != nil || len(files) == 0 {
		f.Fatalf("golden files %s: %v", glob, err)
	}
	for _, file := range files {
		rel, _ := filepath.Rel(filepath.Join("testdata", "golden"), file)
		f.Add(tail, readGolden(f, rel))
	}
	f.Fuzz(func(t *testing.T, tail string, b []byte) {
		k, err := c.ParseKey(tail)
		if err != nil {
			mustBeInvalid(t, err)
			return
		}
		if again, err := c.ParseKey(c.FormatKey(k)); err != nil || again != k {
			t.Fatalf("key %q: got %v, %v, want %v", tail, again, err, k)
		}
		v, err := c.Decode(k, b)
		if err != nil {
			mustBeInvalid(t, err)
			return
		}
		if len(b) > MaxValue/8 {
			return // escaping may make it larger than what may be written
		}
		out, err := c.Encode(k, v)
		if err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
		again, err := c.Decode(k, out)
		if err != nil {
			t.Fatalf("decode what was encoded: %v\n%s", err, out)
		}
		if !c.Equal(v, again) {
			t.Fatalf("got %+v, want %+v", again, v)
		}
	})
}

func mustBeInvalid(t *testing.T, err error) {
	t.Helper()
	var inv *InvalidError
	if !errors.As(err, &inv) {
		t.Fatalf("got %T %v, want an *InvalidError", err, err)
	}
}

func FuzzNode(f *testing.F)       { fuzz(f, Nodes(c3), "n1", "nodes/*") }
func FuzzIP(f *testing.F)         { fuzz(f, IPs(c3), "10.244.1.5", "ip/*") }
func FuzzService(f *testing.F)    { fuzz(f, Services(c3), "default/web", "services/*") }
func FuzzEndpoint(f *testing.F)   { fuzz(f, Endpoints(c3), "n1/432", "endpoints/*") }
func FuzzDefinition(f *testing.F) { fuzz(f, Definitions(), "default/web", "definitions/*") }
func FuzzVIP(f *testing.F)        { fuzz(f, VIPs(), "10.96.0.9", "vips/*") }
func FuzzOwner(f *testing.F)      { fuzz(f, Owners(), "n1", "owners/*") }
func FuzzResting(f *testing.F)    { fuzz(f, Restings(c3), "196866", "restings/*") }
func FuzzToken(f *testing.F) {
	fuzz(f, Tokens(), "00112233445566778899aabbccddeeff", "tokens/*")
}
func FuzzPeer(f *testing.F)          { fuzz(f, Peers(), "west", "peers/*") }
func FuzzClusterConfig(f *testing.F) { fuzz(f, ClusterConfigs(), "c3", "cluster-config/*") }
func FuzzMirror(f *testing.F)        { fuzz(f, Mirrors(), "c3", "mirror/*") }
func FuzzForget(f *testing.F)        { fuzz(f, Forgets(), "c3", "forget/*") }
func FuzzEndpointSlice(f *testing.F) {
	fuzz(f, EndpointSlices(c3), "default/web-1", "endpointslices/*")
}
func FuzzSyncedMark(f *testing.F) { fuzz(f, SyncedMarks(), "c3/cilium/state/nodes/v1", "time/*") }

// Identities are read with fewer demands than they are written: a peer's label string need not end
// in a semicolon.
func FuzzIdentity(f *testing.F) {
	f.Add("196865", readGolden(f, "identities/196865.txt"))
	c := Identities(c3)
	f.Fuzz(func(t *testing.T, tail string, b []byte) {
		k, err := c.ParseKey(tail)
		if err != nil {
			mustBeInvalid(t, err)
			return
		}
		if v, err := c.Decode(k, b); err != nil {
			mustBeInvalid(t, err)
		} else if v != string(b) {
			t.Fatalf("got %q, want %q", v, b)
		}
	})
}

func FuzzEpoch(f *testing.F) {
	f.Add(readGolden(f, "epoch/epoch.json"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEpoch(b)
		if err != nil {
			mustBeInvalid(t, err)
			return
		}
		out, err := EncodeEpoch(e)
		if err != nil {
			return // a year that RFC 3339 has no digits for
		}
		if again, err := DecodeEpoch(out); err != nil || again != e {
			t.Fatalf("got %+v, %v, want %+v", again, err, e)
		}
	})
}

func FuzzDecision(f *testing.F) {
	f.Add(readGolden(f, "decision/decision.json"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := DecodeDecision(b)
		if err != nil {
			mustBeInvalid(t, err)
			return
		}
		out, err := EncodeDecision(d)
		if err != nil {
			return // a year that RFC 3339 has no digits for
		}
		if again, err := DecodeDecision(out); err != nil || again != d {
			t.Fatalf("got %+v, %v, want %+v", again, err, d)
		}
	})
}

func FuzzTime(f *testing.F) {
	f.Add(readGolden(f, "time/heartbeat.txt"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := DecodeTime("k", b); err != nil {
			mustBeInvalid(t, err)
		}
	})
}

// FuzzIPScan holds the fast path against the reference: where it reads a row, both read the same.
func FuzzIPScan(f *testing.F) {
	f.Add("10.244.1.5", readGolden(f, "ip/10.244.1.5.json"))
	f.Add("fd00::5", []byte(`{"IP":"fd00::5","Mask":null,"HostIP":"fc00::1","ID":6,"Key":255,"Metadata":"","NamedPorts":[{"Name":"a","Port":1,"Protocol":"UDP"},{"Name":"b","Port":0,"Protocol":"SCTP"}]}`))
	f.Fuzz(func(t *testing.T, key string, b []byte) {
		p, err := parseIP(key)
		if err != nil {
			return
		}
		k := IPKey{Cluster: "c3", Prefix: p}
		fast, ok := scanIP(k, b)
		if !ok || checkIP(c3, k, fast) != nil {
			return
		}
		want, err := decodeIP(c3, k, b)
		if err != nil {
			t.Fatalf("accepted what the reference refuses: %v", err)
		}
		if fast != want {
			t.Fatalf("got %+v, want %+v", fast, want)
		}
	})
}

func TestIPScan_TakesWhatIsUsual(t *testing.T) {
	k := IPKey{Cluster: "c3", Prefix: netip.MustParsePrefix("10.244.1.5/32")}
	if v, ok := scanIP(k, readGolden(t, "ip/10.244.1.5.json")); !ok || v != ipWeb0() {
		t.Errorf("got %+v, %v", v, ok)
	}
}

func BenchmarkDecodeIP(b *testing.B) {
	k := IPKey{Cluster: "c3", Prefix: netip.MustParsePrefix("10.244.1.5/32")}
	value := readGolden(b, "ip/10.244.1.5.json")
	b.Run("codec", func(b *testing.B) {
		decode := IPs(c3).Decode
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decode(k, value); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodeIP(c3, k, value); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestDecodeIP_Allocations(t *testing.T) {
	k := IPKey{Cluster: "c3", Prefix: netip.MustParsePrefix("10.244.1.5/32")}
	value := readGolden(t, "ip/10.244.1.5.json")
	decode := IPs(c3).Decode
	if n := testing.AllocsPerRun(100, func() {
		if _, err := decode(k, value); err != nil {
			t.Fatal(err)
		}
	}); n > 1 {
		t.Errorf("got %v allocations, want the one of the packed text", n)
	}
}
