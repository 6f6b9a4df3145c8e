// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"github.com/weft-net/weft/agent/api"
)

// healthyWithin asks until the node is healthy or the time is over, and returns
// the last answer.
func healthyWithin(ctx context.Context, c api.AgentClient, limit time.Duration) (*api.StatusResponse, error) {
	end := time.Now().Add(limit)
	for {
		s, err := c.Status(ctx, &api.StatusRequest{})
		if err == nil && statusOf(s).Healthy || time.Now().After(end) || ctx.Err() != nil {
			return s, err
		}
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
