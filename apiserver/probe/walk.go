// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"time"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// Config says which way is walked.
type Config struct {
	Cluster     string // the remote
	File        string // its etcd client file
	MaxClusters uint32 // of our mesh; 0: not compared
	OwnID       uint32 // our number; 0: not compared
	// Timeout bounds each step that asks somebody.
	Timeout time.Duration
}

// Step is one step of the way.
type Step struct {
	Name string `json:"step"`
	// OK is how it went; a step behind one that failed is not tried.
	OK    bool `json:"ok"`
	Tried bool `json:"tried"`
	// Found is what was seen, or why it failed.
	Found string `json:"found,omitempty"`
	// Todo is what to do where it failed.
	Todo string `json:"todo,omitempty"`
}

// names of the steps, in order.
var names = [...]string{"file", "dns", "tcp", "tls", "authorisation", "heartbeat", "cluster-config", "sync"}

// outcome is what one step found.
type outcome struct {
	ok          bool
	found, todo string
}

func good(found string) outcome         { return outcome{true, found, ""} }
func failed(found, todo string) outcome { return outcome{false, found, todo} }

// walk is one walk; each step leaves what the next ones need.
type walk struct {
	cfg    Config
	client kvstore.Config
	etcd   *kvstore.Client
	config schema.ClusterConfig
}

// Walk goes as far as the way goes. All steps are returned, in order.
func Walk(ctx context.Context, cfg Config) []Step {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 5 * time.Second
	}
	w := &walk{cfg: cfg}
	defer w.close()
	tries := [len(names)]func(context.Context) outcome{
		w.file, w.dns, w.tcp, w.tls, w.authorisation, w.heartbeat, w.clusterConfig, w.sync,
	}
	steps := make([]Step, len(names))
	ended := false
	for i, try := range tries {
		steps[i].Name = names[i]
		if ended {
			continue
		}
		sctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
		o := try(sctx)
		cancel()
		steps[i] = Step{names[i], o.ok, true, o.found, o.todo}
		ended = !o.ok
	}
	return steps
}

func (w *walk) close() {
	if w.etcd != nil {
		_ = w.etcd.Close()
	}
}
