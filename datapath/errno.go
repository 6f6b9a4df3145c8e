// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"

	"golang.org/x/sys/unix"
)

// isNoSpace says that the kernel had no room, in a map or in a buffer.
func isNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.E2BIG)
}
