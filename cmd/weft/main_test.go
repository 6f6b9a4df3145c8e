// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/weft-net/weft/agent/api"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"weft": main})
}

// TestCommands runs the scripts in testdata against a canned agent.
func TestCommands(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir, err := os.MkdirTemp("", "weft") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "agent.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	api.RegisterAgentServer(server, &cannedAgent{})
	done := make(chan error)
	go func() { done <- server.Serve(listener) }()
	t.Run("scripts", func(t *testing.T) { // its parallel sub-tests end before Run returns
		testscript.Run(t, testscript.Params{
			Dir: "testdata", UpdateScripts: *update, RequireExplicitExec: true,
			Setup: func(env *testscript.Env) error {
				env.Setenv("WEFT_SOCKET", socket)
				env.Setenv("TZ", "UTC")
				return nil
			},
		})
	})
	server.Stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
