// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// childConfig names the file of the agent that this binary is to run instead of the tests.
const childConfig = "WEFT_TEST_AGENT_CONFIG"

func TestMain(m *testing.M) {
	if file := os.Getenv(childConfig); file != "" {
		os.Exit(runChild(file))
	}
	goleak.VerifyTestMain(m)
}

// runChild is an agent as a process of its own, which a test can kill.
func runChild(file string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := ReadConfig(file, func(string) (string, bool) { return "", false })
	if err == nil {
		var a *Agent
		if a, err = New(cfg, slog.New(slog.NewTextHandler(os.Stderr, nil))); err == nil {
			err = a.Run(ctx)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		return 1
	}
	return 0
}
