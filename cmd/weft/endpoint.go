// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/agent/api"
)

func endpointCommand(a *app) *cobra.Command {
	return group("endpoint", "The endpoints of this node",
		endpointList(a), endpointAdd(a), endpointSet(a), endpointDelete(a))
}

type endpointView struct {
	ID             uint32     `json:"id"`
	Namespace      string     `json:"namespace"`
	Name           string     `json:"name"`
	NetNS          string     `json:"netns"`
	Interface      string     `json:"interface"`
	HostInterface  string     `json:"hostInterface"`
	Addresses      []string   `json:"addresses"`
	Identity       uint32     `json:"identity"`
	Labels         []string   `json:"labels"`
	IdentityLabels []string   `json:"identityLabels"`
	NamedPorts     []portView `json:"namedPorts,omitempty"`
	State          string     `json:"state"`
	Reason         string     `json:"reason,omitempty"`
	Created        time.Time  `json:"created"`
}

type portView struct {
	Name     string `json:"name"`
	Port     uint32 `json:"port"`
	Protocol string `json:"protocol"`
}

func endpointOf(e *api.Endpoint) endpointView {
	v := endpointView{
		ID: e.Id, Namespace: e.Namespace, Name: e.Name, NetNS: e.Netns, Interface: e.Interface, HostInterface: e.HostInterface,
		Addresses: e.Addresses, Identity: e.Identity, Labels: e.Labels, IdentityLabels: e.IdentityLabels,
		State: e.State, Reason: e.Reason, Created: nanos(e.Created),
	}
	for _, p := range e.NamedPorts {
		v.NamedPorts = append(v.NamedPorts, portView{p.Name, p.Port, p.Protocol})
	}
	return v
}

func endpointColumns() []column[endpointView] {
	return []column[endpointView]{
		{"ID", false, func(v endpointView) string { return strconv.Itoa(int(v.ID)) }},
		{"ENDPOINT", false, func(v endpointView) string { return v.Namespace + "/" + v.Name }},
		{"ADDRESSES", false, func(v endpointView) string { return orDash(strings.Join(v.Addresses, ",")) }},
		{"IDENTITY", false, func(v endpointView) string { return strconv.FormatUint(uint64(v.Identity), 10) }},
		{"STATE", false, func(v endpointView) string { return v.State }},
		{"LABELS", false, func(v endpointView) string { return orDash(strings.Join(v.Labels, " ")) }},
		{"INTERFACE", true, func(v endpointView) string { return v.Interface + "/" + v.HostInterface }},
		{"NETNS", true, func(v endpointView) string { return orDash(v.NetNS) }},
		{"AGE", false, func(v endpointView) string { return age(v.Created) }},
		{"REASON", false, func(v endpointView) string { return orDash(v.Reason) }},
	}
}

func endpointList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the endpoints of this node", Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, conn, err := a.client()
			if err != nil {
				return err
			}
			defer conn.Close()
			reply, err := c.EndpointList(cmd.Context(), &api.EndpointListRequest{})
			if err != nil {
				return err
			}
			var views []endpointView
			for _, e := range reply.Endpoints {
				views = append(views, endpointOf(e))
			}
			return printList(a, views, endpointColumns())
		},
	}
}

func endpointAdd(a *app) *cobra.Command {
	var request api.EndpointAddRequest
	var ports []string
	cmd := &cobra.Command{
		Use: "add NAMESPACE/NAME --netns PATH", Short: "Make a network namespace an endpoint", Args: exactly("NAMESPACE/NAME"),
		Example: "  weft endpoint add default/web-0 --netns /run/netns/web-0 --label app=web --port http=8080/TCP",
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if request.Namespace, request.Name, err = splitName(args[0]); err != nil {
				return usage(cmd, err)
			}
			if request.Netns == "" {
				return usage(cmd, errors.New("--netns is missing"))
			}
			for _, p := range ports {
				port, err := parsePort(p)
				if err != nil {
					return usage(cmd, err)
				}
				request.NamedPorts = append(request.NamedPorts, port)
			}
			c, conn, err := a.client()
			if err != nil {
				return err
			}
			defer conn.Close()
			e, err := c.EndpointAdd(cmd.Context(), &request)
			if err != nil {
				return err
			}
			return printEndpoint(a, e)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&request.Netns, "netns", "", "path of the network namespace")
	flags.StringVar(&request.Interface, "interface", "eth0", "name of the device inside it")
	flags.StringArrayVarP(&request.Labels, "label", "l", nil, "label, [source:]key=value; may be given many times")
	flags.StringArrayVarP(&ports, "port", "p", nil, "named port, name=port[/protocol]; may be given many times")
	flags.StringSliceVar(&request.Addresses, "address", nil, "addresses to use instead of free ones")
	flags.StringVar(&request.ServiceAccount, "service-account", "", "service account it runs as")
	return cmd
}

func printEndpoint(a *app, e *api.Endpoint) error {
	v := endpointOf(e)
	if a.format == formatWide {
		return printList(a, []endpointView{v}, endpointColumns())
	}
	return printOne(a, v, func(w io.Writer) {
		fmt.Fprintf(w, "endpoint %d %s/%s: %s, identity %d, %s\n", v.ID, v.Namespace, v.Name,
			strings.Join(v.Addresses, " "), v.Identity, v.State)
		if v.Reason != "" {
			fmt.Fprintf(w, "  %s\n", v.Reason)
		}
	})
}

func endpointSet(a *app) *cobra.Command {
	var request api.EndpointSetRequest
	cmd := &cobra.Command{
		Use: "set ID|NAMESPACE/NAME", Short: "Change labels or state of an endpoint", Args: exactly("ID|NAMESPACE/NAME"),
		ValidArgsFunction: a.completeEndpoint,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if request.Id, request.Namespace, request.Name, err = splitEndpoint(args[0]); err != nil {
				return usage(cmd, err)
			}
			request.SetLabels = cmd.Flags().Changed("label")
			if !request.SetLabels && request.State == "" {
				return usage(cmd, errors.New("nothing to set: give --label or --state"))
			}
			c, conn, err := a.client()
			if err != nil {
				return err
			}
			defer conn.Close()
			e, err := c.EndpointSet(cmd.Context(), &request)
			if err != nil {
				return err
			}
			return printEndpoint(a, e)
		},
	}
	cmd.Flags().StringArrayVarP(&request.Labels, "label", "l", nil, "all labels it shall have from now on")
	cmd.Flags().StringVar(&request.State, "state", "", "ready, not-ready or terminating")
	must(cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(
		[]string{"ready", "not-ready", "terminating"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func endpointDelete(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "delete ID|NAMESPACE/NAME", Aliases: []string{"rm"}, Short: "Take an endpoint out of the network",
		Args: exactly("ID|NAMESPACE/NAME"), ValidArgsFunction: a.completeEndpoint,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, namespace, name, err := splitEndpoint(args[0])
			if err != nil {
				return usage(cmd, err)
			}
			c, conn, err := a.client()
			if err != nil {
				return err
			}
			defer conn.Close()
			reply, err := c.EndpointDelete(cmd.Context(), &api.EndpointDeleteRequest{Id: id, Namespace: namespace, Name: name})
			if err != nil {
				return err
			}
			done := "deleted"
			if !reply.Found {
				done = "was not there"
			}
			return printOne(a, map[string]any{"endpoint": args[0], "found": reply.Found}, func(w io.Writer) {
				fmt.Fprintf(w, "endpoint %s %s\n", args[0], done)
			})
		},
	}
}

func splitEndpoint(s string) (id uint32, namespace, name string, err error) {
	if n, err := strconv.ParseUint(s, 10, 16); err == nil && n > 0 {
		return uint32(n), "", "", nil
	}
	namespace, name, err = splitName(s)
	return 0, namespace, name, err
}

func splitName(s string) (namespace, name string, err error) {
	namespace, name, ok := strings.Cut(s, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return "", "", fmt.Errorf("%q is not NAMESPACE/NAME", s)
	}
	return namespace, name, nil
}

// parsePort reads name=port[/protocol].
func parsePort(s string) (*api.NamedPort, error) {
	name, rest, ok := strings.Cut(s, "=")
	text, protocol, _ := strings.Cut(rest, "/")
	n, err := strconv.ParseUint(text, 10, 16)
	if !ok || name == "" || err != nil || n == 0 {
		return nil, fmt.Errorf("--port %q is not name=port[/protocol], such as http=8080/TCP", s)
	}
	if protocol == "" {
		protocol = "TCP"
	}
	return &api.NamedPort{Name: name, Port: uint32(n), Protocol: strings.ToUpper(protocol)}, nil
}
