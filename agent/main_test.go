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

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
	"github.com/weft-net/weft/service/store"
)

// Variables by which this binary is something else than the tests.
const (
	childConfig  = "WEFT_TEST_AGENT_CONFIG" // an agent with this file
	childService = "WEFT_TEST_SERVICE"      // adds this definition
	childKey     = "WEFT_TEST_KEY"          // writes this key …
	childValue   = "WEFT_TEST_VALUE"        // … with this value
	childSays    = "WEFT_TEST_SAYS"         // succeeds if this node has said …
	childEpoch   = "WEFT_TEST_EPOCH"        // … that its rows are there in this epoch
	childStore   = "WEFT_TEST_STORE"        // in the store with this URL
)

func TestMain(m *testing.M) {
	if file := os.Getenv(childConfig); file != "" {
		os.Exit(runChild(file))
	}
	if definition := os.Getenv(childService); definition != "" {
		exit(addService(context.Background(), os.Getenv(childStore), definition))
	}
	if key := os.Getenv(childKey); key != "" {
		exit(put(context.Background(), os.Getenv(childStore), key, os.Getenv(childValue)))
	}
	if node := os.Getenv(childSays); node != "" {
		exit(says(context.Background(), os.Getenv(childStore), node, os.Getenv(childEpoch)))
	}
	goleak.VerifyTestMain(m)
}

// exit ends the process as one that did, or could not do, what it was for.
func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func addService(ctx context.Context, url, definition string) error {
	parsed, err := service.ParseFile([]byte(definition))
	if err != nil {
		return err
	}
	c, err := connect(url)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = store.Add(ctx, c, parsed[0], nil)
	return err
}

func put(ctx context.Context, url, key, value string) error {
	c, err := connect(url)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Put(ctx, key, []byte(value), 0)
	return err
}

// says is nil if a node has said that all its rows are in the store of this epoch.
func says(ctx context.Context, url, node, epoch string) error {
	c, err := connect(url)
	if err != nil {
		return err
	}
	defer c.Close()
	kv, there, err := c.Get(ctx, schema.OwnersPrefix+node)
	if err != nil || !there {
		return fmt.Errorf("word of %s: there %v: %v", node, there, err)
	}
	if o, err := schema.Owners().Decode(node, kv.Value); err != nil || !o.Complete || o.Epoch != epoch {
		return fmt.Errorf("word of %s: %+v: %v", node, o, err)
	}
	return nil
}

func connect(url string) (*kvstore.Client, error) {
	cfg := kvstore.DefaultConfig()
	cfg.Endpoints = []string{url}
	return kvstore.New(cfg, slog.New(slog.DiscardHandler))
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
