// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"fmt"
)

// Do runs one request of the client library (see Etcd) under the client's limits, with its errors:
// step is what the error begins with.
func (c *Client) Do(ctx context.Context, step string, request func(context.Context) error) error {
	return c.do(ctx, step, request)
}

// Explain gives an error of the client library, of a request that Do is too short for, the endpoint
// and the reason where the connection or the store is the cause.
func (c *Client) Explain(step string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", step, c.problems.explain(err, c.cfg.Endpoints))
}
