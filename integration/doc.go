// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package integration holds the end-to-end tests: whole meshes built by integration/lab, with the
// real binary in processes of its own, driven by the scripts in testdata. Nothing imports it.
package integration
