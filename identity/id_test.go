// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import "testing"

func TestID_Names(t *testing.T) {
	for id, want := range map[ID]string{
		Unknown: "unknown", Host: "host", RemoteNode: "remote-node", WorldIPv6: "world-ipv6",
		14: "aggregate-remote-node", 15: "15", 196865: "196865",
	} {
		if got := id.String(); got != want {
			t.Errorf("%d: got %q, want %q", uint32(id), got, want)
		}
	}
	for id, want := range map[ID]string{
		Host: "reserved:host=;", KubeAPIServer: "reserved:kube-apiserver=;reserved:remote-node=;", 200: "", Unknown: "",
	} {
		if got := ReservedLabels(id).String(); got != want {
			t.Errorf("%d: got %q, want %q", uint32(id), got, want)
		}
	}
}

func TestID_Cluster(t *testing.T) {
	for _, c := range []struct {
		id       ID
		max      uint32
		cluster  uint32
		reserved bool
		local    bool
	}{
		{196608, 255, 3, false, false},
		{262143, 255, 3, false, false},
		{262144, 255, 4, false, false},
		{131071, 511, 3, false, false},
		{65535, 0, 0, false, false},
		{16777215, 255, 255, false, false},
		{16777217, 255, 0, false, true},
		{33554433, 255, 0, false, true},
		{104, 255, 0, true, false},
	} {
		if c.id.Cluster(c.max) != c.cluster || c.id.IsReserved() != c.reserved || c.id.IsLocal() != c.local {
			t.Errorf("%d of %d: got cluster %d, reserved %v, local %v", uint32(c.id), c.max,
				c.id.Cluster(c.max), c.id.IsReserved(), c.id.IsLocal())
		}
	}
	if OfRemote(Host) != RemoteNode || OfRemote(World) != World || OfRemote(196608) != 196608 {
		t.Error("of remote: wrong")
	}
}

func TestWellKnown(t *testing.T) {
	ids := WellKnown("c3")
	for labels, want := range map[string]ID{
		"k8s:io.cilium.k8s.policy.cluster=c3;k8s:io.cilium.k8s.policy.serviceaccount=coredns;k8s:io.kubernetes.pod.namespace=kube-system;k8s:k8s-app=kube-dns;":                                                                            104,
		"k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=kube-system;k8s:io.cilium.k8s.policy.cluster=c3;k8s:io.cilium.k8s.policy.serviceaccount=coredns;k8s:io.kubernetes.pod.namespace=kube-system;k8s:k8s-app=kube-dns;": 112,
		"k8s:io.cilium.k8s.policy.cluster=c4;k8s:io.cilium.k8s.policy.serviceaccount=coredns;k8s:io.kubernetes.pod.namespace=kube-system;k8s:k8s-app=kube-dns;":                                                                            0,
	} {
		if got := ids[labels]; got != want {
			t.Errorf("%s: got %d, want %d", labels, uint32(got), uint32(want))
		}
	}
}
