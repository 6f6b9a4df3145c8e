// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"io"
	"net"
	"sync"
)

// serveTCP answers connections with what they send, until the listener closes; the channel it
// returns is closed when all connections have ended.
func serveTCP(l net.Listener) <-chan struct{} {
	done := make(chan struct{})
	var conns sync.WaitGroup
	accept := func() {
		defer close(done)
		defer conns.Wait()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
			})
		}
	}
	go accept()
	return done
}
