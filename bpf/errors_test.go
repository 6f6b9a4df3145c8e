// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/netns"
)

// TestLoadError_Refused: a program that the verifier refuses is named, with all the verifier said.
func TestLoadError_Refused(t *testing.T) {
	netns.RequireRoot(t)
	cfg := small()
	cfg.TicksPerSecond = 250
	spec, err := Spec(cfg)
	if err != nil {
		t.Fatal(err)
	}
	spec.Programs[weftProgFromEndpoint].Instructions = asm.Instructions{asm.Return()} // R0 is not set
	objects := new(weftObjects)
	err = loadError(spec.LoadAndAssign(objects, &ebpf.CollectionOptions{}), "")
	var refused *RefusedError
	if !errors.As(err, &refused) {
		objects.Close()
		t.Fatalf("got %v, want a *RefusedError", err)
	}
	if refused.Program != weftProgFromEndpoint || !strings.Contains(strings.Join(refused.Log, "\n"), "R0 !read_ok") {
		t.Errorf("program %q, log %q", refused.Program, refused.Log)
	}
	if want := "program from_endpoint: the kernel's verifier refused it"; !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %q, want one line that begins with %q", err, want)
	}
}

// TestErrors_Kinds: a map without room and a kernel that lacks something have errors of
// their own.
func TestErrors_Kinds(t *testing.T) {
	netns.RequireRoot(t)
	objects := load(t, small())
	var full *FullError
	if err := WriteError("ipcache", objects.Ipcache, unix.E2BIG); !errors.As(err, &full) || full.Map != "ipcache" || full.Size != small().MaxIPCache {
		t.Errorf("got %v", err)
	}
	if err := WriteError("ipcache", objects.Ipcache, unix.EPERM); errors.As(err, &full) || !errors.Is(err, unix.EPERM) {
		t.Errorf("got %v", err)
	}
	if err := WriteError("ipcache", objects.Ipcache, nil); err != nil {
		t.Errorf("got %v", err)
	}
	var lacks *KernelError
	if err := tcxError(unix.EINVAL); !errors.As(err, &lacks) || lacks.Minimum != "6.6" {
		t.Errorf("got %v", err)
	}
	if err := socketsError(ebpf.ErrNotSupported); !errors.As(err, &lacks) || lacks.Minimum != "5.18" {
		t.Errorf("got %v", err)
	}
	if err := socketsError(unix.EPERM); err == nil || errors.As(err, &lacks) {
		t.Errorf("got %v", err)
	}
	if err := tcxError(unix.EPERM); err == nil || errors.As(err, &lacks) {
		t.Errorf("got %v", err)
	}
}
