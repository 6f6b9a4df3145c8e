// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// command is what the sub-commands of one command line share.
type command struct {
	options Options
}

// Command is `weft lab` with all its sub-commands.
func Command() *cobra.Command {
	c := &command{options: DefaultOptions()}
	root := &cobra.Command{
		Use: "lab", Short: "Build whole meshes on this machine",
		Long: "Build whole meshes on this machine: clusters, nodes and pods in network namespaces, one process each.\n" +
			"It needs root, and nothing else.",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().StringVar(&c.options.Name, "name", c.options.Name, "name of the lab; several stand side by side")
	root.PersistentFlags().StringVar(&c.options.Dir, "dir", "", "state directory (default "+DirOf("NAME")+")")
	root.PersistentPreRunE = func(cmd *cobra.Command, args []string) error {
		// Cobra runs only the nearest hook; the root of the command line has one too.
		for p := root.Parent(); p != nil; p = p.Parent() {
			if p.PersistentPreRunE != nil {
				if err := p.PersistentPreRunE(cmd, args); err != nil {
					return err
				}
			}
		}
		dir, err := c.dir()
		c.options.Dir = dir
		return err
	}
	root.AddCommand(c.up(), c.down(), c.demo(), c.status(), c.cut(), c.heal(), c.kill(), c.start(), c.exec(), c.load(), c.check(), c.store(),
		etcdCommand(), workloadCommand(), clientCommand())
	return root
}

// dir is the state directory that was named, or the one that goes with the lab's name, by its real path.
func (c *command) dir() (string, error) {
	if c.options.Dir == "" {
		return realPath(DirOf(c.options.Name))
	}
	return realPath(c.options.Dir)
}

// shape adds the flags that say what to build.
func (c *command) shape(cmd *cobra.Command) {
	f, o := cmd.Flags(), &c.options
	f.IntVar(&o.Clusters, "clusters", o.Clusters, "number of clusters")
	f.IntVar(&o.Nodes, "nodes", o.Nodes, "nodes in each cluster")
	f.IntVar(&o.Pods, "pods", o.Pods, "pods on each node")
	f.StringVar((*string)(&o.Mode), "mode", string(o.Mode), "path between nodes: vxlan or native")
	f.StringVar((*string)(&o.Family), "family", string(o.Family), "addresses of pods: 4, 6 or dual")
	f.DurationVar(&o.LeaseTTL, "lease-ttl", o.LeaseTTL, "how long a node's rows outlive its agent (default: the agent's)")
	f.IntVar(&o.EtcdMembers, "etcd-members", o.EtcdMembers, "members of each cluster's store")
	f.IntVar(&o.APIServers, "apiservers", o.APIServers, "API servers of each cluster, by which the clusters join with tokens; 0: they read each other's stores")
	f.BoolVar(&o.Unjoined, "unjoined", o.Unjoined, "leave clusters with API servers apart")
	f.Int64Var(&o.EtcdQuota, "etcd-quota", o.EtcdQuota, "how large a store may get, bytes (default: etcd's)")
	f.IntVar(&o.WANMTU, "wan-mtu", o.WANMTU, "largest packet between clusters, bytes")
	for name, values := range map[string][]string{"mode": {string(VXLAN), string(Native)}, "family": {"4", "6", "dual"}} {
		// The flag was defined above; the only error is that it was not.
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
}

// self sets the binary that the lab's processes run: this one.
func (c *command) self() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	c.options.Weft = exe
	if err := c.options.Validate(); err != nil {
		return &UsageError{err}
	}
	return asRoot()
}

// ErrRoot is returned to whoever is not root, before anything is done.
var ErrRoot = errors.New("needs root: a lab makes network namespaces and loads BPF programs")

// ErrUnhealthy is returned where a command judges and something is not well.
var ErrUnhealthy = errors.New("not healthy")

// UsageError is an argument or option that was not understood.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap gives what is wrong.
func (e *UsageError) Unwrap() error { return e.Err }

func asRoot() error {
	if os.Geteuid() != 0 {
		return ErrRoot
	}
	return nil
}

// atLeast wants as many arguments as there are names.
func atLeast(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return &UsageError{fmt.Errorf("%s is missing", names[len(args)])}
		}
		return nil
	}
}

// open reads the lab for somebody who may enter its namespaces.
func (c *command) open() (*Lab, error) {
	if err := asRoot(); err != nil {
		return nil, err
	}
	return Open(c.options.Dir)
}

func progress(cmd *cobra.Command) *Progress {
	return &Progress{Print: func(format string, args ...any) { fmt.Fprintf(cmd.OutOrStdout(), format, args...) }}
}

func (c *command) up() *cobra.Command {
	cmd := &cobra.Command{
		Use: "up", Short: "Build a lab and wait until its mesh is ready", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.self(); err != nil {
				return err
			}
			begin := time.Now()
			l, err := Up(cmd.Context(), c.options, progress(cmd))
			if err != nil {
				return err
			}
			first, weft, of := l.Clusters[0], os.Args[0], flagsOf(l.Name, l.Dir)
			fmt.Fprintf(cmd.OutOrStdout(), "\nready in %.1f s. Try:\n  %s lab status%s\n  %s lab exec%s %s -- %s status\n  %s lab load%s --from %s\n  %s lab down%s\n",
				time.Since(begin).Seconds(), weft, of, weft, of, first.Nodes[0].Name, l.Weft, weft, of, first.client().Name, weft, of)
			return nil
		},
	}
	c.shape(cmd)
	return cmd
}

func (c *command) down() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Remove a lab without a trace", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := asRoot(); err != nil {
				return err
			}
			there := stands(c.options.Name, c.options.Dir)
			if err := Down(cmd.Context(), c.options.Name, c.options.Dir); err != nil {
				return err
			}
			if !there {
				fmt.Fprintf(cmd.OutOrStdout(), "lab %s: nothing is there\n", c.options.Name)
			}
			return nil
		},
	}
}

func (c *command) demo() *cobra.Command {
	keep := false
	cmd := &cobra.Command{
		Use: "demo", Short: "Show a global service, its failover and its return", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.self(); err != nil {
				return err
			}
			return Demo(cmd.Context(), c.options, keep, progress(cmd))
		},
	}
	c.shape(cmd)
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the lab standing")
	return cmd
}

func (c *command) cut() *cobra.Command {
	return c.link("cut", "Take a link down", (*Lab).Cut)
}

func (c *command) heal() *cobra.Command {
	return c.link("heal", "Bring a link back", (*Lab).Heal)
}

func (c *command) link(use, short string, do func(*Lab, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " LINK...", Short: short, Args: atLeast("LINK"),
		Long: short + ". Links are control/CLUSTER (to the other clusters' API servers), data/CLUSTER (packets),\n" +
			"etcd/CLUSTER (its own store), node/NODE (packets of one node), store/NODE (one node's way to all stores).",
		ValidArgsFunction: c.complete((*Lab).linkNames),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := c.open()
			if err != nil {
				return err
			}
			for _, name := range args {
				if err := do(l, name); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (c *command) kill() *cobra.Command {
	name := "KILL"
	cmd := &cobra.Command{
		Use:   "kill PROCESS...",
		Short: "Kill processes: etcd/CLUSTER[/MEMBER], operator/CLUSTER, apiserver/CLUSTER[/REPLICA], agent/NODE, pod/POD",
		Args:  atLeast("PROCESS"), ValidArgsFunction: c.complete(processNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			sig := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
			if sig == 0 {
				return &UsageError{fmt.Errorf("signal %q: want KILL, TERM, STOP, CONT or another name of kill -l", name)}
			}
			if err := asRoot(); err != nil {
				return err
			}
			for _, p := range args {
				if err := Kill(cmd.Context(), c.options.Dir, p, sig); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&name, "signal", "s", name, "signal to send")
	_ = cmd.RegisterFlagCompletionFunc("signal", cobra.FixedCompletions(
		[]string{"KILL", "TERM", "STOP", "CONT"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (c *command) start() *cobra.Command {
	return &cobra.Command{
		Use: "start PROCESS...", Short: "Start what was killed", Args: atLeast("PROCESS"),
		ValidArgsFunction: c.complete(processNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := asRoot(); err != nil {
				return err
			}
			for _, p := range args {
				if err := Start(cmd.Context(), c.options.Dir, p); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// linkNames are those that wires knows.
func (l *Lab) linkNames() (names []string) {
	for _, cl := range l.Clusters {
		names = append(names, "control/"+cl.Name, "data/"+cl.Name, "etcd/"+cl.Name)
		for _, n := range cl.Nodes {
			names = append(names, "node/"+n.Name, "store/"+n.Name)
		}
	}
	return names
}

func processNames(l *Lab) (names []string) {
	for _, c := range l.Clusters {
		for i := range c.members() {
			names = append(names, memberProcess(&c, i))
		}
		names = append(names, "operator/"+c.Name)
		for i := range c.APIServers {
			names = append(names, serverProcess(&c, i))
		}
		for _, n := range c.Nodes {
			names = append(names, "agent/"+n.Name)
		}
	}
	for _, p := range l.pods() {
		names = append(names, "pod/"+p.Name)
	}
	return names
}

func placeNames(l *Lab) (names []string) {
	names = []string{"wan"}
	for _, c := range l.Clusters {
		names = append(names, "etcd/"+c.Name, "operator/"+c.Name)
		for i := range c.APIServers {
			names = append(names, serverProcess(&c, i))
		}
		for _, n := range c.Nodes {
			names = append(names, n.Name)
		}
	}
	for _, p := range l.pods() {
		names = append(names, p.Name)
	}
	return names
}

// complete offers names of the lab that stands.
func (c *command) complete(names func(*Lab) []string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		dir, err := c.dir()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		l, err := Open(dir)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names(l), cobra.ShellCompDirectiveNoFileComp
	}
}

func (c *command) exec() *cobra.Command {
	return &cobra.Command{
		Use: "exec PLACE -- COMMAND [ARG...]", Short: "Run a command inside a node, pod, store or the wan",
		Args: atLeast("PLACE", "COMMAND"), ValidArgsFunction: c.complete(placeNames),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := c.open()
			if err != nil {
				return err
			}
			return l.Exec(args[0], args[1:])
		},
	}
}

func (c *command) load() *cobra.Command {
	var from, log string
	ld := Load{Rate: 100, Duration: 10 * time.Second, Timeout: 2 * time.Second}
	cmd := &cobra.Command{
		Use: "load", Short: "Call a service and log every connect: when, how long, who answered", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := c.open()
			if err != nil {
				return err
			}
			pod := l.Clusters[0].client()
			if from != "" {
				if _, pod, err = l.pod(from); err != nil {
					return err
				}
			}
			if ld.Rate < 0 || ld.Sessions < 0 || ld.Rate+ld.Sessions == 0 {
				return &UsageError{fmt.Errorf("rate %d and sessions %d: want one of them above 0, none below", ld.Rate, ld.Sessions)}
			}
			if ld.Target == "" {
				cl, err := l.cluster(pod.Cluster)
				if err != nil {
					return err
				}
				ld.Target = hostPort(cl.Service.Addresses[0], ld.port())
			}
			format, _ := cmd.Flags().GetString("output")
			return l.Exec(pod.Name, ld.argv(l.Weft, log, format))
		},
	}
	ld.flags(cmd)
	cmd.Flags().StringVar(&from, "from", "", "pod that calls (default: the client of the first cluster)")
	_ = cmd.RegisterFlagCompletionFunc("from", c.complete(func(l *Lab) (names []string) {
		for _, p := range l.pods() {
			names = append(names, p.Name)
		}
		return names
	}))
	cmd.Flags().StringVar(&log, "log", "", "file for the log, one JSON object a line (default: none)")
	return cmd
}

func (c *command) check() *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Send TCP, UDP and ICMP, small and large, over every kind of way", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := c.open()
			if err != nil {
				return err
			}
			results, err := l.Check(cmd.Context())
			if err != nil {
				return err
			}
			format, _ := cmd.Flags().GetString("output")
			return printResults(cmd.OutOrStdout(), format, results)
		},
	}
}

func (c *command) status() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show what stands: addresses, sockets, pids, endpoints, services", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := Open(c.options.Dir)
			if err != nil {
				return err
			}
			st := l.Status(cmd.Context())
			format, _ := cmd.Flags().GetString("output")
			if format == "json" {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetEscapeHTML(false)
				e.SetIndent("", "  ")
				if err := e.Encode(st); err != nil {
					return err
				}
			} else if err := st.print(cmd.OutOrStdout(), format); err != nil {
				return err
			}
			return st.err()
		},
	}
}

// untilQuit is the context of the lab's own long-running processes.
func untilQuit(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
}
