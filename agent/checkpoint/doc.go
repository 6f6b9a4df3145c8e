// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package checkpoint is the file in which an agent keeps the rows of one store over a restart: a
// header, the rows as keys and bytes, and a checksum over all of it. It knows nothing of what the
// rows mean; the agent writes and reads them by the codecs of the store. Only the agent imports it.
package checkpoint
