// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"os"
	"slices"
	"strings"
)

// environ is what the programs of a lab inherit: everything but the variables that set weft. Those are
// meant for another agent or store than the lab's: of a shell that stands on a node of the lab, or of
// somebody who works with a cluster of his own. How much is logged, and what tests tell their processes,
// goes on.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "WEFT_") &&
			!strings.HasPrefix(variable, "WEFT_LOG_") && !strings.HasPrefix(variable, "WEFT_TEST_")
	})
}
