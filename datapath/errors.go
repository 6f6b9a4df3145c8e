// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
)

// UnsupportedError says that the kernel lacks something that weft cannot do without.
type UnsupportedError struct {
	Feature string // what is missing
	Kernel  string // first version that has it
	Err     error  // what the kernel answered
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s: not supported by this kernel, needs Linux %s or later", e.Feature, e.Kernel)
}

func (e *UnsupportedError) Unwrap() error { return e.Err }

// VerifierError says that the kernel refused a program. Error is one line; Log has everything.
type VerifierError struct {
	Program string
	Log     string // the verifier's log, many lines
	Err     error
}

func (e *VerifierError) Error() string {
	return fmt.Sprintf("program %s: refused by the verifier: %v", e.Program, e.Err)
}

func (e *VerifierError) Unwrap() error { return e.Err }

// MapFullError says that a row did not fit.
type MapFullError struct {
	Map string
	Max uint32 // entries it can hold
}

func (e *MapFullError) Error() string {
	return fmt.Sprintf("map %s: full with %d entries", e.Map, e.Max)
}

// NameClashError says that a device which weft needs is there already and is not weft's.
type NameClashError struct {
	Device string
	Reason string // what is different about it
}

func (e *NameClashError) Error() string {
	return fmt.Sprintf("device %s: belongs to somebody else: %s", e.Device, e.Reason)
}
