// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/agent"
	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/datapath"
)

// A hintError is an error with the command to try next.
type hintError struct {
	err  error
	next string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

func hint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hintError{err, fmt.Sprintf(format, args...)}
}

// A usageError is a command line that was not understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(cmd *cobra.Command, err error) error {
	return &usageError{hint(err, "%s --help", cmd.CommandPath())}
}

// errUnhealthy ends a command that printed what is not well.
var errUnhealthy = errors.New("not healthy")

// report prints what went wrong and returns the exit code.
func (a *app) report(err error, interrupted bool) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUnhealthy):
		return exitUnhealthy
	case interrupted && (errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled):
		return exitOK // somebody watched until they had seen enough
	}
	err = a.explain(err)
	lines := strings.Split(strings.TrimRight(err.Error(), "\n"), "\n")
	for _, line := range lines {
		fmt.Fprintf(a.err, "weft: %s\n", line)
	}
	var refused *bpf.RefusedError
	if errors.As(err, &refused) {
		fmt.Fprintln(a.err, strings.Join(refused.Log, "\n"))
	}
	var h *hintError
	if errors.As(err, &h) && h.next != "" {
		fmt.Fprintf(a.err, "next: %s\n", h.next)
	}
	var u *usageError
	if errors.As(err, &u) {
		return exitUsage
	}
	return exitError
}

// explain turns what gRPC says into words of the agent's API.
func (a *app) explain(err error) error {
	var h *hintError
	if errors.As(err, &h) {
		return err
	}
	var (
		c       *agent.ConfigError
		running *agent.RunningError
		lacks   *bpf.KernelError
		layout  *bpf.LayoutError
		clash   *datapath.NameClashError
	)
	switch {
	case errors.As(err, &c):
		return hint(err, "weft agent --help")
	case errors.As(err, &running):
		return hint(err, "weft status --socket %s", running.Socket)
	case errors.As(err, &lacks):
		return hint(err, "boot a kernel of at least %s", lacks.Minimum)
	case errors.As(err, &layout):
		return hint(err, "give the map settings that the pinned maps were made with, or empty the node with 'weft bpf cleanup --node NODE --yes' (its endpoints lose their network)")
	case errors.As(err, &clash):
		return hint(err, "ip link show %s (rename or remove it if nobody needs it)", clash.Device)
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	text := errors.New(s.Message())
	switch s.Code() {
	case codes.Unavailable:
		return hint(fmt.Errorf("no agent answers on %s: %w", a.socket, text),
			"start one with 'weft agent --config FILE', or name its socket with --socket or WEFT_SOCKET")
	case codes.Unimplemented:
		return hint(text, "weft version (is the agent older than this command?)")
	case codes.NotFound:
		return hint(text, "weft get (lists the tables), weft endpoint list")
	case codes.DeadlineExceeded:
		return hint(fmt.Errorf("no answer in time: %w", text), "weft status")
	case codes.ResourceExhausted, codes.FailedPrecondition:
		return hint(text, "weft status")
	default:
		return text
	}
}
