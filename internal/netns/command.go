// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
)

// Cmd is an exec.Cmd whose process starts inside a namespace.
//
// The process is the program itself, not a wrapper that enters and runs it: Process.Pid is its pid,
// and killing it kills it. Do not set SysProcAttr.Pdeathsig: the kernel ties it to the thread that
// started the process, and that thread does not live as long as the program.
type Cmd struct {
	*exec.Cmd

	ns *NS
}

// Command returns a command that will run in the namespace; see exec.CommandContext for ctx and
// for what can be set before it starts.
func (n *NS) Command(ctx context.Context, name string, args ...string) *Cmd {
	return &Cmd{Cmd: exec.CommandContext(ctx, name, args...), ns: n}
}

// Start is exec.Cmd.Start inside the namespace: a child belongs to the namespace of the thread
// that forks it.
func (c *Cmd) Start() error { return c.ns.Do(c.Cmd.Start) }

// Run starts the command and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the command and returns what it wrote to standard output.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("netns: standard output is already set")
	}
	var out bytes.Buffer
	c.Stdout = &out
	err := c.Run()
	return out.Bytes(), err
}

// CombinedOutput runs the command and returns what it wrote to standard output and standard error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errors.New("netns: standard output or error is already set")
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}
