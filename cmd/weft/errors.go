// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/agent"
	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/datapath"
	"github.com/weft-net/weft/integration/lab"
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

// needsRoot refuses what only root may do before any of it is done.
func (a *app) needsRoot(why string) error {
	if a.uid() == 0 {
		return nil
	}
	return hint(fmt.Errorf("needs root: %s", why), "sudo %s", strings.Join(os.Args, " "))
}

// report prints what went wrong and returns the exit code.
func (a *app) report(err error, interrupted bool) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUnhealthy):
		return exitUnhealthy
	case interrupted && (errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled):
		if a.endless {
			return exitOK // somebody watched until they had seen enough
		}
		fmt.Fprintln(a.err, "weft: interrupted before it was done")
		return exitInterrupted
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
	var (
		u       *usageError
		setting *agent.ConfigError
		option  *lab.UsageError
	)
	switch {
	case errors.As(err, &u), errors.As(err, &setting), errors.As(err, &option):
		return exitUsage
	case errors.Is(err, lab.ErrUnhealthy):
		return exitUnhealthy
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
		option  *lab.UsageError
	)
	switch {
	case errors.As(err, &c):
		return hint(err, "weft agent --help")
	case errors.As(err, &option):
		return hint(err, "weft lab --help")
	case errors.Is(err, lab.ErrNotUp):
		return hint(err, "weft lab up")
	case errors.Is(err, lab.ErrRoot):
		return hint(err, "sudo %s", strings.Join(os.Args, " "))
	case errors.Is(err, lab.ErrUnhealthy):
		return hint(err, "weft lab start PROCESS, weft lab heal LINK, or weft lab exec NODE -- weft status")
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
	switch {
	case ok:
	case errors.Is(err, fs.ErrNotExist):
		return hint(err, "ls -l the path that is named, and correct it on the command line or in the settings")
	case errors.Is(err, fs.ErrPermission):
		return hint(err, "sudo %s", strings.Join(os.Args, " "))
	default:
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
