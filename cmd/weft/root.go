// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/weft-net/weft/agent"
	"github.com/weft-net/weft/agent/api"
)

// app is what every command shares: streams, environment and global flags.
type app struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) (string, bool)
	environ  func() []string // all variables, as os.Environ; nil: none
	uid      func() int      // effective, as os.Geteuid

	socket string // --socket, WEFT_SOCKET
	format string // --output

	// endless is set by a command that runs until it is interrupted: to interrupt it is to end it well.
	endless bool
}

// getenv returns the variable or a default for the unset or empty one.
func (a *app) getenv(key, otherwise string) string {
	if v, ok := a.env(key); ok && v != "" {
		return v
	}
	return otherwise
}

// callTime bounds one question to the agent; what streams has no bound.
const callTime = time.Minute

// client connects to the agent behind --socket. The caller closes.
func (a *app) client() (api.AgentClient, *grpc.ClientConn, error) {
	return api.Dial(a.socket, grpc.WithUnaryInterceptor(
		func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, next grpc.UnaryInvoker, options ...grpc.CallOption) error {
			ctx, cancel := context.WithTimeout(ctx, callTime)
			defer cancel()
			return next(ctx, method, request, reply, conn, options...)
		}))
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "weft",
		Short: "weft joins the container networks of many clusters into one",
		Long: "weft joins the container networks of many clusters into one.\n\n" +
			"Exit codes: 0 done (and healthy, where a command judges), 1 failed, 2 not understood, 3 not healthy,\n" +
			"130 interrupted before it was done.",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
		Args:              noCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, err) })

	flags := root.PersistentFlags()
	flags.StringVar(&a.socket, "socket", a.getenv("WEFT_SOCKET", agent.DefaultConfig().Socket), "unix socket of the agent (WEFT_SOCKET)")
	flags.StringVarP(&a.format, "output", "o", formatTable, "table, wide, json or yaml")
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(
		[]string{formatTable, formatWide, formatJSON, formatYAML}, cobra.ShellCompDirectiveNoFileComp)))
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if !knownFormat(a.format) {
			return usage(cmd, fmt.Errorf("output %q: use table, wide, json or yaml", a.format))
		}
		a.warnVariables()
		return nil
	}

	root.AddCommand(
		statusCommand(a), getCommand(a), endpointCommand(a), identityCommand(a), serviceCommand(a), nodeCommand(a),
		meshCommand(a), bpfCommand(a), monitorCommand(a),
		agentCommand(a), operatorCommand(a), apiserverCommand(a), storeCommand(a), certCommand(a),
		versionCommand(a),
	)
	root.AddCommand(labCommands(a)...)
	argumentsAreUsage(root)
	return root
}

// argumentsAreUsage makes every complaint about arguments, also cobra's own, one of usage.
func argumentsAreUsage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			var u *usageError
			if err == nil || errors.As(err, &u) {
				return err
			}
			return usage(cmd, err)
		}
	}
	for _, sub := range cmd.Commands() {
		argumentsAreUsage(sub)
	}
}

// group makes a command that only holds others.
func group(use, short string, sub ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(sub...)
	return cmd
}

func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("unknown command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		err = fmt.Errorf("%w, did you mean %q?", err, near[0])
	}
	return usage(cmd, err)
}

// exactly and atMost check the number of arguments and name them.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usage(cmd, fmt.Errorf("%s is missing", names[len(args)]))
		case len(args) > len(names):
			return usage(cmd, fmt.Errorf("too many arguments: %q", args[len(names)]))
		}
		return nil
	}
}

func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usage(cmd, fmt.Errorf("too many arguments: %q", args[n]))
		}
		return nil
	}
}

// must is for registrations that fail only when this file is wrong.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
