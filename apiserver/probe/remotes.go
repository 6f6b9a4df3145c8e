// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/weft-net/weft/kvstore/schema"
)

// Remotes are the clusters that a directory has client files of, in order. What is called like a
// cluster and names no endpoints is no client file.
func Remotes(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("client files: %w", err)
	}
	var names []string
	for _, e := range entries {
		if schema.CheckClusterName(e.Name()) != nil {
			continue
		}
		// What cannot be read is walked too: the first step says why not.
		if b, err := os.ReadFile(filepath.Join(dir, e.Name())); err != nil || bytes.Contains(b, []byte("endpoints:")) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
