// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import "fmt"

// NameClashError says that a device which weft needs is there already and is not weft's.
type NameClashError struct {
	Device string
	Reason string // what is different about it
}

func (e *NameClashError) Error() string {
	return fmt.Sprintf("device %s: belongs to somebody else: %s", e.Device, e.Reason)
}
