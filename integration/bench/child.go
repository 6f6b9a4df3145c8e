// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// child is a worker that is told something line by line and answers each in JSON, so that what it does
// and what it needs is not taken for ours.
type child struct {
	name    string
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers *json.Decoder
	stderr  strings.Builder
}

// startChild starts a worker and returns when it has said its first line, which is read into ready.
func startChild(ctx context.Context, ready any, args ...string) (_ *child, err error) {
	c := &child{name: args[0]}
	defer func() {
		if err != nil {
			err = fmt.Errorf("start %s: %w", c.name, err)
		}
	}()
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c.cmd = exec.CommandContext(ctx, exe, append([]string{workerArg}, args...)...)
	c.cmd.Stderr = &c.stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.answers = json.NewDecoder(out)
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if err := c.answers.Decode(ready); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// ask says a line and reads the answer.
func (c *child) ask(line string, answer any) error {
	if err := c.tell(line); err != nil {
		return err
	}
	return c.answer(line, answer)
}

// tell says a line, whose answer is to be read before the next.
func (c *child) tell(line string) error {
	if _, err := fmt.Fprintln(c.stdin, line); err != nil {
		return fmt.Errorf("%s: %s: %w", c.name, line, err)
	}
	return nil
}

// answer reads what is said to a line. One with an error is an error.
func (c *child) answer(line string, answer any) error {
	var raw json.RawMessage
	if err := c.answers.Decode(&raw); err != nil {
		return fmt.Errorf("%s: %s: %w", c.name, line, err)
	}
	var failed struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(raw, &failed); err != nil {
		return fmt.Errorf("%s: %s: %w", c.name, line, err)
	}
	if failed.Error != "" {
		return fmt.Errorf("%s: %s: %s", c.name, line, failed.Error)
	}
	if err := json.Unmarshal(raw, answer); err != nil {
		return fmt.Errorf("%s: %s: %w", c.name, line, err)
	}
	return nil
}

// cpu is the processor time of the worker so far.
func (c *child) cpu() (time.Duration, error) {
	ns, err := cpuTime(c.cmd.Process.Pid)
	return time.Duration(ns), err
}

// memory is the most that the worker had in memory so far, in bytes.
func (c *child) memory() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kb); n == 1 {
			return kb << 10, nil
		}
	}
	return 0, fmt.Errorf("%s: the kernel does not say how large it was", c.name)
}

// stop ends the worker, which the end of its input does, and waits for it.
func (c *child) stop() error {
	c.stdin.Close()
	timer := time.AfterFunc(10*time.Second, func() { c.cmd.Process.Kill() })
	defer timer.Stop()
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", c.name, err, strings.TrimSpace(c.stderr.String()))
	}
	return nil
}

// kill ends the worker as a crash does.
func (c *child) kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait() // says that it was killed
}
