// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package store writes service definitions to the store: a definition and the virtual addresses it
// holds change in one transaction, so that no two services ever have the same one, whoever writes
// and in whatever order. No leader is needed.
//
// It is for the commands that people give (weft service add and delete). Agents and operators read
// definitions by a watch, and derive what they mean with package service.
package store
