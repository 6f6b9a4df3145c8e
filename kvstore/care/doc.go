// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package care looks after a cluster's etcd: Read gathers what is known of it and judges it, in words
// that lead on; Relieve takes a full store (NOSPACE) back into service; an Exporter shows the same as
// metrics. It is not for the rows of the store, whose meaning it does not know, nor for what nodes do
// while the store is away.
//
// The operator's process and the command line import it.
package care
