// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
	"github.com/weft-net/weft/service/store"
)

func serviceCommand(a *app) *cobra.Command {
	list := tableCommand(a, "list", "List the services", "services", []column[row]{
		{"SERVICE", false, func(r row) string { return r.Key }},
		{"FRONTENDS", false, func(r row) string { return r.field("frontends") }},
		{"ACTIVE", false, func(r row) string { return r.field("active") }},
		{"TERMINATING", true, func(r row) string { return r.field("terminating") }},
		{"GLOBAL", false, func(r row) string { return r.field("global") }},
		{"SHARED", true, func(r row) string { return r.field("shared") }},
		{"AFFINITY", false, func(r row) string { return r.field("affinity") }},
		{"REMOTES", false, func(r row) string { return r.remotes() }},
		{"AGE", false, func(r row) string { return age(r.Changed) }},
		{"PROBLEMS", false, func(r row) string { return r.field("problems") }},
	})
	return group("service", "The services of this cluster", list, serviceAdd(a), serviceDelete(a))
}

type serviceView struct {
	Service  string       `json:"service"`
	VIPs     []netip.Addr `json:"vips"`
	Warnings []string     `json:"warnings,omitempty"`
}

func serviceAdd(a *app) *cobra.Command {
	var file string
	var etcd etcdFlags
	cmd := &cobra.Command{
		Use: "add -f FILE", Short: "Add or change services", Args: atMost(0),
		Long: "Add or change services. The file holds YAML documents, for example:\n\n" +
			"  namespace: default\n  name: web\n  annotations: {service.cilium.io/global: \"true\"}\n" +
			"  ports: [{name: http, port: 80, targetPort: http}]\n  selector: {app: web}\n" +
			"  vips: [10.96.0.9]        # absent: taken from the service CIDRs; []: headless",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usage(cmd, errors.New("-f is missing: name the file, or - for standard input"))
			}
			data, err := readInput(a, file)
			if err != nil {
				return err
			}
			parsed, err := service.ParseFile(data)
			if err != nil {
				return hint(fmt.Errorf("%s: %w", file, err), "weft service add --help")
			}
			client, err := etcd.open(cmd.Context(), a)
			if err != nil {
				return err
			}
			defer client.Close()
			cidrs, err := etcd.prefixes()
			if err != nil {
				return usage(cmd, err)
			}
			var views []serviceView
			for _, p := range parsed {
				d, err := store.Add(cmd.Context(), client, p, cidrs)
				if err != nil {
					return storeHint(err)
				}
				v := serviceView{Service: p.Key.String(), VIPs: d.VIPs}
				for _, w := range p.Warnings {
					v.Warnings = append(v.Warnings, w.String())
				}
				views = append(views, v)
			}
			return printList(a, views, []column[serviceView]{
				{"SERVICE", false, func(v serviceView) string { return v.Service }},
				{"ADDRESSES", false, func(v serviceView) string { return orDash(strings.Join(texts(v.VIPs), ",")) }},
				{"WARNINGS", false, func(v serviceView) string { return orDash(strings.Join(v.Warnings, "; ")) }},
			})
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file with services; - is standard input")
	cmd.Flags().StringSliceVar(&etcd.cidrs, "service-cidrs", splitList(a.getenv("WEFT_SERVICE_CIDRS", "")),
		"ranges of virtual addresses; default: those of this node's agent (WEFT_SERVICE_CIDRS)")
	etcd.add(a, cmd.Flags())
	return cmd
}

func serviceDelete(a *app) *cobra.Command {
	var etcd etcdFlags
	cmd := &cobra.Command{
		Use: "delete NAMESPACE/NAME", Aliases: []string{"rm"}, Short: "Delete a service and give its addresses back",
		Args: exactly("NAMESPACE/NAME"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return a.live(cmd, tableKeys("definitions"))
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			namespace, name, err := splitName(args[0])
			if err != nil {
				return usage(cmd, err)
			}
			client, err := etcd.open(cmd.Context(), a)
			if err != nil {
				return err
			}
			defer client.Close()
			found, err := store.Delete(cmd.Context(), client, schema.DefinitionKey{Namespace: namespace, Name: name})
			if err != nil {
				return storeHint(err)
			}
			done := "deleted"
			if !found {
				done = "was not there"
			}
			return printOne(a, map[string]any{"service": args[0], "found": found}, func(w io.Writer) {
				fmt.Fprintf(w, "service %s %s\n", args[0], done)
			})
		},
	}
	etcd.add(a, cmd.Flags())
	return cmd
}

func readInput(a *app, file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(a.in)
	}
	return os.ReadFile(file)
}

func texts[T fmt.Stringer](list []T) []string {
	var out []string
	for _, x := range list {
		out = append(out, x.String())
	}
	return out
}

func splitList(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
