// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package weft holds the tests about the code itself: import direction, package comments, licences,
// and that the documents point at code that exists. Nothing imports it.
package weft
