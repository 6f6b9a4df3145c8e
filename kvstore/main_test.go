// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/weft-net/weft/kvstore/kvstoretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plain is an etcd without encryption.
func plain(t testing.TB) *kvstoretest.Server {
	return kvstoretest.Start(t, kvstoretest.Options{})
}

func TestWatch_Conformance(t *testing.T) { kvstoretest.RunWatch(t, plain) }

func TestWatch_ConformanceOverTLS(t *testing.T) {
	ca := kvstoretest.NewCA(t, "ours")
	kvstoretest.RunWatch(t, func(t testing.TB) *kvstoretest.Server {
		return kvstoretest.Start(t, kvstoretest.Options{CA: ca, Name: "server-" + strings.ReplaceAll(t.Name(), "/", "-")})
	})
}
