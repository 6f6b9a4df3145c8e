// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package bpf is the datapath in the kernel: the C programs, the maps they share, and what Go
// needs to load them.
//
// The programs are compiled when weft is built for release and the objects are committed, so
// neither users nor go build need a C compiler. Keys, values, events and enumerations are defined
// once, in lib/*.h, and generated for Go. Tests run the programs through BPF_PROG_TEST_RUN.
//
// The package attaches nothing and knows no tables: that is what package datapath is for, which
// imports it, and so may every package above it. It imports none of ours.
package bpf
