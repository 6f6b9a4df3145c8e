// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Command weft is every role of weft and its command line in one binary. It
// reads flags, calls packages and prints what they say; it holds no logic.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes; scripts rely on them.
const (
	exitOK        = 0
	exitError     = 1 // it was tried and failed
	exitUsage     = 2 // it was not understood
	exitUnhealthy = 3 // it works, and what it judged is not well

	exitInterrupted = 130 // a signal ended what was to end by itself; 128 and SIGINT, as shells say it
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.LookupEnv, environ: os.Environ, uid: os.Geteuid}
	err := newRoot(a).ExecuteContext(ctx)
	return a.report(err, errors.Is(ctx.Err(), context.Canceled))
}
