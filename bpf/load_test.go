// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/weft-net/weft/internal/netns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small is a configuration whose maps cost little memory.
func small() Config {
	cfg := DefaultConfig()
	cfg.EndpointSlots = 64
	cfg.MaxFlows, cfg.MaxYoungFlows, cfg.MaxFragments = 1024, 1024, 1024
	cfg.MaxIPCache, cfg.MaxPrefixes, cfg.MaxNodes = 1024, 256, 64
	cfg.MaxFrontends, cfg.MaxBackends, cfg.MaxSockets = 256, 1024, 1024
	cfg.EventBytes = 1 << 20
	return cfg
}

// loadAnew loads the programs.
func loadAnew(t testing.TB, cfg Config) *Objects {
	t.Helper()
	objects, err := Load(cfg)
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		t.Fatalf("%v\n%s", err, strings.Join(refused.Log, "\n"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestLoad(t *testing.T) {
	netns.RequireRoot(t)
	objects := loadAnew(t, small())
	defer objects.Close()
	if _, err := objects.Now(); err != nil {
		t.Fatal(err)
	}
}
