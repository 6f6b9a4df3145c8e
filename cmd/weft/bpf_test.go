// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/weft-net/weft/agent"
	"github.com/weft-net/weft/agent/api"
)

// TestMayCleanup_Refusals asks the question alone: what comes after it touches this machine.
func TestMayCleanup_Refusals(t *testing.T) {
	dir, err := os.MkdirTemp("", "weft") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, name := range []string{"n1", "n2%2eexample"} {
		if err := os.MkdirAll(filepath.Join(dir, "weft", name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "agent.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	api.RegisterAgentServer(server, &cannedAgent{})
	done := make(chan error)
	go func() { done <- server.Serve(listener) }()
	defer func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	none := filepath.Join(dir, "none")
	for _, tt := range []struct {
		name, bpffs, node, socket string
		want                      []string // parts of the error; none: it may
	}{
		{"no-agent", dir, "n1", none, nil},
		{"no-agent-name-with-a-dot", dir, "n2.example", none, nil},
		{"other-name", dir, "n3", none, []string{`"n3"`, "n1, n2.example"}},
		{"part-of-a-name", dir, "n", none, []string{`"n"`, "n1, n2.example"}},
		{"no-pins", none, "n1", none, []string{"no node has"}},
		{"agent-lives", dir, "n1", socket, []string{"an agent answers on " + socket}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from := &bpfFlags{node: tt.node, bpffs: tt.bpffs}
			err := from.mayCleanup(t.Context(), &app{socket: tt.socket})
			if (err == nil) != (tt.want == nil) {
				t.Fatalf("error: %v", err)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q: no %q in it", err, part)
				}
			}
		})
	}
}

// TestFields_FixedColumns says that columns do not depend on what the entries have.
func TestFields_FixedColumns(t *testing.T) {
	for _, v := range agent.MapViews("", "") {
		if mapColumns(v.Name) == nil {
			t.Errorf("view %s: no order of columns", v.Name)
		}
	}
	entries := []mapEntry{{"flows", "TCP 10.1.1.2:1->10.1.1.3:80 from 1", []byte(`{"packets":3,"state":["open","seen"],"young":true}`)}}
	header, rows := fields("flows", entries)
	empty, _ := fields("flows", nil)
	if diff := cmp.Diff(empty, header); diff != "" {
		t.Error(diff)
	}
	want := "TCP 10.1.1.2:1->10.1.1.3:80 from 1 - open,seen - - - - 3 - - - - yes"
	if got := strings.Join(rows[0], " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
