// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/weft-net/weft/kvstore/kvstoretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plain is an etcd without encryption.
func plain(t testing.TB) *kvstoretest.Server {
	return kvstoretest.Start(t, kvstoretest.Options{})
}
