// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/spf13/cobra"

func serviceCommand(a *app) *cobra.Command {
	return group("service", "The services of this cluster", tableCommand(a, "list", "List the services", "services", []column[row]{
		{"SERVICE", false, func(r row) string { return r.Key }},
		{"FRONTENDS", false, func(r row) string { return r.field("frontends") }},
		{"BACKENDS", false, func(r row) string { return r.field("backends") }},
		{"AGE", false, func(r row) string { return age(r.Changed) }},
	}))
}
