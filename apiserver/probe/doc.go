// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package probe walks the way to a remote cluster step by step, as a mirror or an agent goes it, and
// says at which step it ends and what to do: file, DNS, TCP, TLS, authorisation, heartbeat,
// cluster-config, sync. It changes nothing and keeps nothing. It is for people who ask what is wrong;
// what runs has its own status. Only cmd imports it.
package probe
