// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"testing"
	"time"
)

// TestMetrics_CertificatesEnd: the server tells how long its certificate is good, also of a new one that it
// shows from now on, and nothing of one that it does not have.
func TestMetrics_CertificatesEnd(t *testing.T) {
	f := newFixture(t, nil)
	read := func(name string) (seconds float64, there bool) {
		t.Helper()
		families, err := f.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range families {
			if m.GetName() == name {
				return m.GetMetric()[0].GetGauge().GetValue(), true
			}
		}
		return 0, false
	}
	if s, ok := read("weft_apiserver_certificate_seconds"); !ok || s <= 0 || s > time.Hour.Seconds() {
		t.Errorf("the certificate is good for %v s, %t; it was made for an hour", s, ok)
	}
	f.ca.Issue(t, "server", 10*time.Hour) // in the same files
	if s, ok := read("weft_apiserver_certificate_seconds"); !ok || s <= time.Hour.Seconds() {
		t.Errorf("the new certificate is good for %v s, %t; it was made for ten hours", s, ok)
	}
	if s, ok := read("weft_apiserver_store_certificate_seconds"); ok {
		t.Errorf("a certificate for a store without TLS is good for %v s", s)
	}
}
