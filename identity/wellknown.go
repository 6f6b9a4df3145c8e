// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

// WellKnown returns the identities with fixed numbers, as they stand in the cluster with this name:
// label string to number. They are the name servers of common distributions; all members of a mesh
// know them by these numbers, so they are never allocated.
func WellKnown(cluster string) map[string]ID {
	workloads := []struct {
		id      ID
		account string
		labels  map[string]string
	}{
		{102, "kube-dns", map[string]string{"k8s-app": "kube-dns"}},
		{103, "kube-dns", map[string]string{"k8s-app": "kube-dns", "eks.amazonaws.com/component": "kube-dns"}},
		{104, "coredns", map[string]string{"k8s-app": "kube-dns"}},
		{106, "coredns", map[string]string{"k8s-app": "kube-dns", "eks.amazonaws.com/component": "coredns"}},
	}
	const namespace = "kube-system"
	ids := make(map[string]ID, 2*len(workloads))
	for _, w := range workloads {
		var labels []Label
		for k, v := range w.labels {
			labels = append(labels, Label{SourceKubernetes, k, v})
		}
		s := NewLabels(labels...).With(
			Label{SourceKubernetes, ClusterKey, cluster},
			Label{SourceKubernetes, ServiceAccountKey, w.account},
			Label{SourceKubernetes, NamespaceKey, namespace},
		)
		ids[s.String()] = w.id
		// Newer Kubernetes labels every namespace with its name, which makes another set.
		s = s.With(Label{SourceKubernetes, "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name", namespace})
		ids[s.String()] = w.id + 8
	}
	return ids
}
