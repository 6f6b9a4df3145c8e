// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

// Extra is the members of a JSON object that this version does not know, so that a rewrite keeps
// them: a comma separated list of raw members in order of name. It is comparable; empty means none.
type Extra string
