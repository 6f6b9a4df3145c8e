// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/state"
)

// A node says that its rows are there only when the numbers of its endpoints are too: until all have
// spoken, the others keep numbers that a wiped store does not have.
func TestOwners_WaitForTheNumbersOfEndpoints(t *testing.T) {
	s := kvstoretest.Start(t, kvstoretest.Options{})
	c := s.Client()
	o := &owners{
		cfg: Config{Cluster: "east", ClusterID: 1, Node: "e1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, client: c,
		node:      state.NewTable[schema.NodeKey]("nodes", schema.Nodes(schema.Scope{}).Equal),
		endpoints: state.NewTable[schema.EndpointKey]("endpoints", schema.Endpoints(schema.Scope{}).Equal),
	}
	for i, number := range []uint32{65600, 65600, 65601, 4, 0} { // 4 is reserved, 0 none yet
		o.endpoints.Put("local", 0, schema.EndpointKey{Cluster: "east", Node: "e1", ID: uint32(i + 1)}, schema.Endpoint{Identity: number})
	}
	o.node.MarkSynced("local")
	o.endpoints.MarkSynced("local")
	const epoch = "00112233445566778899aabbccddeeff"
	speaks := func(want bool) {
		t.Helper()
		got, err := o.speak(t.Context(), epoch, 0)
		if err != nil || got != want {
			t.Fatalf("spoke %v, %v; want %v", got, err, want)
		}
		if _, said, err := c.Get(t.Context(), schema.OwnersPrefix+"e1"); err != nil || said != want {
			t.Fatalf("the word is there: %v, %v; want %v", said, err, want)
		}
	}
	for _, k := range o.keys() {
		s.Put(c, k, "{}")
	}
	speaks(false)
	s.Put(c, schema.IdentityMasterKey(65600), "k8s:app=web;")
	speaks(false)
	s.Put(c, schema.IdentityMasterKey(65601), "k8s:app=other;") // whatever it stands for now
	speaks(true)
	kv, _, err := c.Get(t.Context(), schema.OwnersPrefix+"e1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"epoch":"`+epoch+`","rows":5,"complete":true}`, strings.TrimSpace(string(kv.Value))); diff != "" {
		t.Errorf("numbers are not rows of the node (-want +got):\n%s", diff)
	}
}
