// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"

	"github.com/weft-net/weft/agent/api"
)

// colored reports whether w is a terminal that may get colors (no-color.org).
func (a *app) colored(w io.Writer) bool {
	if v, ok := a.env("NO_COLOR"); ok && v != "" {
		return false
	}
	if v, _ := a.env("TERM"); v == "dumb" {
		return false
	}
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// mark is the sign in front of a status line.
func mark(h api.Health, color bool) string {
	sign, code := "\u2013", "\x1b[90m" // en dash
	switch h {
	case api.Health_HEALTH_OK:
		sign, code = "\u2713", "\x1b[32m"
	case api.Health_HEALTH_WARNING:
		sign, code = "!", "\x1b[33m"
	case api.Health_HEALTH_FAILED:
		sign, code = "\u2717", "\x1b[31m"
	}
	if !color {
		return sign
	}
	return code + sign + "\x1b[0m"
}
