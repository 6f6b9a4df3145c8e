// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"os"
	"testing"
)

// RequireRoot ends a test that needs root. Without root it skips on a developer's machine, and
// fails where CI=true, so that nothing silently stops being tested.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this test needs root, and CI=true does not let it skip")
	}
	t.Skip("this test needs root")
}
