// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/agent"
	"github.com/weft-net/weft/bpf"
	"github.com/weft-net/weft/integration/lab"
)

func TestReport_ExitCodes(t *testing.T) {
	for _, tt := range []struct {
		name        string
		err         error
		interrupted bool
		endless     bool
		code        int
		text        string
	}{
		{"done", nil, false, false, exitOK, ""},
		{"unhealthy", fmt.Errorf("x: %w", errUnhealthy), false, false, exitUnhealthy, ""},
		{"usage", &usageError{hint(errors.New("what"), "weft --help")}, false, false, exitUsage, "weft: what\nnext: weft --help\n"},
		{"watched-enough", status.Error(codes.Canceled, "context canceled"), true, true, exitOK, ""},
		{"cancelled-by-another", context.Canceled, false, false, exitError, "weft: context canceled\n"},
		{"interrupted-half-way", fmt.Errorf("x: %w", context.Canceled), true, false, exitInterrupted, "weft: interrupted before it was done\n"},
		{"lab-option", &lab.UsageError{Err: errors.New("mode foo")}, false, false, exitUsage, "next: weft lab --help"},
		{"lab-unhealthy", fmt.Errorf("%w: etcd/east", lab.ErrUnhealthy), false, false, exitUnhealthy, "etcd/east\nnext: weft lab start"},
		{"lab-not-up", fmt.Errorf("load lab: %w", lab.ErrNotUp), false, false, exitError, "next: weft lab up\n"},
		{"no-file", fmt.Errorf("config: %w", &fs.PathError{Op: "open", Path: "/x", Err: fs.ErrNotExist}), false, false, exitError, "next: ls -l"},
		{"no-permission", fmt.Errorf("open: %w", fs.ErrPermission), false, false, exitError, "next: sudo "},
		{"not-root", lab.ErrRoot, false, false, exitError, "weft: needs root"},
		{"no-agent", status.Error(codes.Unavailable, "no such file"), false, false, exitError, "no agent answers on /s: no such file"},
		{"slow-agent", status.Error(codes.DeadlineExceeded, "late"), false, false, exitError, "next: weft status"},
		{"setting", &agent.ConfigError{Key: "node", Reason: "is missing"}, false, false, exitUsage, "next: weft agent --help"},
		{"second-agent", &agent.RunningError{Socket: "/s"}, false, false, exitError, "next: weft status --socket /s"},
		{"old-kernel", &bpf.KernelError{Feature: "tcx links", Minimum: "6.6", Err: errors.ErrUnsupported}, false, false, exitError, "at least 6.6"},
		{"verifier", &bpf.RefusedError{Program: "from_endpoint", Log: []string{"insn 7: no"}, Err: errors.ErrUnsupported}, false, false, exitError, "insn 7: no"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			a := &app{err: &out, socket: "/s", endless: tt.endless}
			if code := a.report(tt.err, tt.interrupted); code != tt.code {
				t.Errorf("code %d, want %d", code, tt.code)
			}
			if got := out.String(); (tt.text == "") != (got == "") || !strings.Contains(got, tt.text) {
				t.Errorf("printed %q, want %q", got, tt.text)
			}
		})
	}
}

func TestColor_OnlyOnTerminals(t *testing.T) {
	a := &app{env: func(string) (string, bool) { return "", false }}
	if a.colored(&bytes.Buffer{}) {
		t.Error("colors for something that is no terminal")
	}
	if got := mark(1, true); got != "\x1b[32m\u2713\x1b[0m" {
		t.Errorf("got %q", got)
	}
}

func TestNeedsRoot(t *testing.T) {
	a := &app{uid: func() int { return 1000 }}
	var h *hintError
	if err := a.needsRoot("it does"); err == nil || err.Error() != "needs root: it does" || !errors.As(err, &h) {
		t.Errorf("got %v", err)
	}
	a.uid = func() int { return 0 }
	if err := a.needsRoot("it does"); err != nil {
		t.Error(err)
	}
}
