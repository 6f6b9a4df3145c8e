// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"strings"
	"testing"

	"github.com/weft-net/weft/kvstore/kvstoretest"
)

// The tests of Watch are a suite, for whatever else serves a weft store has to pass it too.
func TestWatch_Conformance(t *testing.T) { kvstoretest.RunWatch(t, plain) }

func TestWatch_ConformanceGuarded(t *testing.T) {
	kvstoretest.RunGuardedWatch(t, func(t testing.TB) *kvstoretest.Server {
		return kvstoretest.Start(t, kvstoretest.Options{Guarded: true})
	})
}

func TestWatch_ConformanceOverTLS(t *testing.T) {
	ca := kvstoretest.NewCA(t, "ours")
	kvstoretest.RunWatch(t, func(t testing.TB) *kvstoretest.Server {
		return kvstoretest.Start(t, kvstoretest.Options{CA: ca, Name: "server-" + strings.ReplaceAll(t.Name(), "/", "-")})
	})
}
