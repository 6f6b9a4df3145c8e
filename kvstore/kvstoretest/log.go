// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstoretest

import (
	"bytes"
	"log/slog"
	"sync"
)

// LogBuffer is a log that a test may read while it is written.
type LogBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Logger writes to the buffer.
func (b *LogBuffer) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// Write appends what a logger writes.
func (b *LogBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String is all that was written.
func (b *LogBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
