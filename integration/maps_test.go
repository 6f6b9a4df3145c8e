// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/integration/lab"
)

// cmdMaps writes what the kernels of a lab have to a file, to compare it with later: maps FILE.
func cmdMaps(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: maps FILE")
	}
	l, err := lab.Open(lab.DirOf(ts.Getenv("LAB")))
	ts.Check(err)
	text, err := kernels(context.Background(), l)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// kernels are all entries of the maps in which the kernels of a lab have what was learnt from stores, one
// on each line: addresses, services, endpoints.
func kernels(ctx context.Context, l *lab.Lab) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out strings.Builder
	for _, c := range l.Clusters {
		for _, n := range c.Nodes {
			client, conn, err := api.Dial(n.Socket)
			if err != nil {
				return "", err
			}
			for _, name := range []string{"ipcache", "lb", "endpoint"} {
				entries, err := mapEntries(ctx, client, name)
				if err != nil {
					conn.Close()
					return "", fmt.Errorf("map %s of %s: %w", name, n.Name, err)
				}
				for _, key := range slices.Sorted(maps.Keys(entries)) {
					fmt.Fprintf(&out, "%s %s %s %s\n", n.Name, name, key, entries[key])
				}
			}
			conn.Close()
		}
	}
	return out.String(), nil
}
