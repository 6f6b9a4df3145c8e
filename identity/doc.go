// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package identity gives numbers to sets of labels: the numbers rules and maps work with instead of
// addresses. A set has one number in its cluster, and the number says which cluster it is of.
//
// It holds label sets and their wire form, the filter that picks the labels that matter, reserved
// and well-known numbers, the Allocator that an agent uses for its endpoints, the collector (GC) that
// the operator runs, and Local numbers for prefixes that never leave a node.
//
// It does not decide which labels an endpoint has, nor what an identity may do (package policy), and
// it does not mirror the numbers of this or other clusters; package kvstore's Watch does.
// Everything above policy in the import order may import it.
package identity
