// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/embedded"
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
	etcd := startEtcd(t)
	t.Run("scripts", func(t *testing.T) { // its parallel sub-tests end before Run returns
		testscript.Run(t, testscript.Params{
			Dir: "testdata", UpdateScripts: *update, RequireExplicitExec: true,
			Cmds: map[string]func(*testscript.TestScript, bool, []string){
				"exitcode": exitcode,
				"put":      func(ts *testscript.TestScript, neg bool, args []string) { put(ts, etcd, neg, args) },
			},
			Setup: func(env *testscript.Env) error {
				env.Setenv("WEFT_SOCKET", socket)
				env.Setenv("TZ", "UTC")
				return os.WriteFile(filepath.Join(env.WorkDir, "etcd.yaml"), []byte("endpoints: ["+etcd.Endpoint()+"]\n"), 0o600)
			},
		})
	})
	etcd.Stop()
	server.Stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// exitcode runs a command that must end with that code: exitcode CODE COMMAND [ARG...]
func exitcode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode CODE COMMAND [ARG...]")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// startEtcd runs a store on a free port of the loopback.
func startEtcd(t *testing.T) *embedded.Server {
	t.Helper()
	url := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return "http://" + l.Addr().String()
	}
	s, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), ClientURL: url(), PeerURL: url(), UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put writes one key: put KEY VALUE
func put(ts *testscript.TestScript, etcd *embedded.Server, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: put KEY VALUE")
	}
	c, err := kvstore.New(kvstore.Config{Endpoints: []string{etcd.Endpoint()}}, slog.New(slog.DiscardHandler))
	ts.Check(err)
	defer c.Close()
	_, err = c.Put(context.Background(), args[0], []byte(args[1]), 0)
	ts.Check(err)
}
