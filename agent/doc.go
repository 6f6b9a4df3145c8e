// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package agent is the composition root of a node: it owns the node's
// configuration, the life of its endpoints and their addresses, the local API,
// and it connects stores, tables, derivations and the datapath with plain
// constructor calls. It decides nothing that another package can decide and
// touches the kernel only through package datapath. Only cmd and integration
// import it.
package agent
