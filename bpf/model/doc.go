// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package model is the datapath once more, in Go and written from its description: what a node
// decides about a packet, what becomes of the packet, and which flow entries, counters and events
// it leaves. It is the referee of the C programs: its tests run both on the same packets and rows
// and compare.
//
// It is made to be obviously right, not fast, and is not used outside of tests. It may import
// package bpf for the types of map keys and values, and nothing else of ours.
package model
