// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package backup takes a verified copy of a cluster's etcd (Save), and makes the data directory of a
// new member from one (Restore). What Restore makes can not be mistaken for the store it came from:
// its revisions begin far above, its history is marked compacted, and it carries a new epoch. It is
// not for deciding what nodes do with a store that went back in time; that is kvstore's.
//
// It brings etcd's server code with it: only the command line imports it.
package backup
