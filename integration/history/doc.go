// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package history judges a run after it is over. Clients, stores and agents log what they saw as
// records, one JSON object a line; [Check] reads the whole history and names each guarantee of
// docs/guarantees.md that it shows broken, with the shortest part of the history that shows it.
//
// A record says what was seen, never whether it was right: that is decided here, from all records
// together. The package starts nothing and connects to nothing; the end-to-end tests import it.
package history
