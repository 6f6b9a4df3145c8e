// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package loopback gives tests addresses of servers that stop and start again.
package loopback

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
)

// Free returns a free address:port of 127.0.0.1 between 10000 and 31999. That is below the ports that
// Linux begins connections at (32768), so nobody gets it while a server that had it is down.
func Free(t testing.TB) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.N(22000)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
}
