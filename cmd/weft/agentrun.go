// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"github.com/weft-net/weft/agent"
)

func runAgent(context.Context, *app, agent.Config) error {
	return errors.New("agent: not in this build")
}
