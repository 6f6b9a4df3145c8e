// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/agent"
	"github.com/weft-net/weft/bpf"
)

func TestReport_ExitCodes(t *testing.T) {
	for _, tt := range []struct {
		name        string
		err         error
		interrupted bool
		code        int
		text        string
	}{
		{"done", nil, false, exitOK, ""},
		{"unhealthy", fmt.Errorf("x: %w", errUnhealthy), false, exitUnhealthy, ""},
		{"usage", &usageError{hint(errors.New("what"), "weft --help")}, false, exitUsage, "weft: what\nnext: weft --help\n"},
		{"watched-enough", status.Error(codes.Canceled, "context canceled"), true, exitOK, ""},
		{"cancelled-by-another", context.Canceled, false, exitError, "weft: context canceled\n"},
		{"no-agent", status.Error(codes.Unavailable, "no such file"), false, exitError, "no agent answers on /s: no such file"},
		{"slow-agent", status.Error(codes.DeadlineExceeded, "late"), false, exitError, "next: weft status"},
		{"setting", &agent.ConfigError{Key: "node", Reason: "is missing"}, false, exitError, "next: weft agent --help"},
		{"second-agent", &agent.RunningError{Socket: "/s"}, false, exitError, "next: weft status --socket /s"},
		{"old-kernel", &bpf.KernelError{Feature: "tcx links", Minimum: "6.6", Err: errors.ErrUnsupported}, false, exitError, "at least 6.6"},
		{"verifier", &bpf.RefusedError{Program: "from_endpoint", Log: []string{"insn 7: no"}, Err: errors.ErrUnsupported}, false, exitError, "insn 7: no"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			a := &app{err: &out, socket: "/s"}
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
