// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/weft-net/weft/agent"
)

// foreign are variables that only look like ours: what Kubernetes sets for a service called weft or
// weft-*, and those of tests.
var foreign = regexp.MustCompile(`_SERVICE_(HOST|PORT)|_PORT(_|$)|^WEFT_(TEST|SOAK|LAB|SEED)`)

// variables are those that some command reads.
func variables() []string {
	names := []string{"WEFT_SOCKET", "WEFT_CONFIG", "WEFT_ETCD", "WEFT_SERVICE_CIDRS", "WEFT_BPFFS", "WEFT_CLUSTER"}
	defaults := agent.DefaultConfig()
	for _, s := range defaults.Settings() {
		names = append(names, s.Env())
	}
	return names
}

// warnVariables names variables that begin as ours do and are none. They are not refused: what
// starts weft may set them for itself.
func (a *app) warnVariables() {
	if a.environ == nil {
		return
	}
	known := variables()
	set := a.environ()
	slices.Sort(set)
	for _, text := range set {
		name, _, _ := strings.Cut(text, "=")
		if !strings.HasPrefix(name, "WEFT_") || slices.Contains(known, name) || foreign.MatchString(name) {
			continue
		}
		near := "'weft agent --help' lists all settings"
		if k, ok := agent.Nearest(name, known); ok {
			near = "did you mean " + k + "?"
		}
		fmt.Fprintf(a.err, "weft: warning: variable %s is not known and not read; %s\n", name, near)
	}
}
