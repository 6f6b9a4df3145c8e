// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"regexp"
	"strings"
)

// defaultFilter ignores what differs between replicas of the same workload or says nothing about
// it, and so would only cost numbers.
func defaultFilter() []string {
	return []string{
		"reserved:.*",
		"io\\.kubernetes\\.pod\\.namespace",
		"io\\.cilium\\.k8s\\.namespace\\.labels",
		"app\\.kubernetes\\.io",
		"!io\\.kubernetes",
		"!kubernetes\\.io",
		"!statefulset\\.kubernetes\\.io/pod-name",
		"!apps\\.kubernetes\\.io/pod-index",
		"!batch\\.kubernetes\\.io/job-completion-index",
		"!batch\\.kubernetes\\.io/controller-uid",
		"!.*beta\\.kubernetes\\.io",
		"!k8s\\.io",
		"!pod-template-generation",
		"!pod-template-hash",
		"!controller-revision-hash",
		"!annotation.*",
		"!controller-uid",
		"!etcd_node",
	}
}

// mandatory are the includes that hold whatever else is configured.
func mandatory() []string { return defaultFilter()[:4] }

// Filter picks the labels that matter for identities. It should be the same in a whole cluster,
// else equal workloads get several numbers; between clusters it may differ.
type Filter struct {
	rules     []filterRule
	whitelist bool // a label that no rule matches does not count
}

type filterRule struct {
	ignore bool
	source string // empty: any
	key    *regexp.Regexp
}

// DefaultFilter returns the filter of an installation that configures none.
func DefaultFilter() *Filter {
	f, err := parseFilter(defaultFilter())
	if err != nil {
		panic(err) // a constant of this file
	}
	return f
}

// NewFilter returns a filter of rules [!][source:]regexp, where the expression matches the beginning
// of a label's key and an exclamation mark ignores it. With an including rule, labels that no rule
// matches do not count, and the mandatory includes (namespace and its labels, reserved,
// app.kubernetes.io) are added. With ignoring rules only, they come on top of the default filter.
func NewFilter(rules ...string) (*Filter, error) {
	include := false
	for _, r := range rules {
		include = include || !strings.HasPrefix(r, "!")
	}
	base := defaultFilter()
	if include {
		base = mandatory()
	}
	f, err := parseFilter(append(base, rules...))
	if err != nil {
		return nil, err
	}
	f.whitelist = include
	return f, nil
}

func parseFilter(rules []string) (*Filter, error) {
	f := &Filter{}
	for _, text := range rules {
		var r filterRule
		expr := text
		if expr, r.ignore = strings.CutPrefix(expr, "!"); expr == "" {
			return nil, fmt.Errorf("label filter %q: no expression", text)
		}
		if source, rest, ok := strings.Cut(expr, ":"); ok {
			r.source, expr = source, rest
		}
		var err error
		if r.key, err = regexp.Compile("^(?:" + expr + ")"); err != nil {
			return nil, fmt.Errorf("label filter %q: %w", text, err)
		}
		f.rules = append(f.rules, r)
	}
	return f, nil
}

// Apply returns the labels that count.
func (f *Filter) Apply(all Labels) Labels {
	var keep []Label
	for l := range all.All() {
		if f.Relevant(l) {
			keep = append(keep, l)
		}
	}
	return NewLabels(keep...)
}

// Relevant tells whether one label counts. Of the rules that match it, an including one wins if it
// matches more of the key than the shortest match of an ignoring one.
func (f *Filter) Relevant(l Label) bool {
	included, ignored := 0, 0
	for _, r := range f.rules {
		if r.source != "" && r.source != l.Source {
			continue
		}
		loc := r.key.FindStringIndex(l.Key)
		switch {
		case loc == nil:
		case r.ignore && (ignored == 0 || loc[1] < ignored):
			ignored = loc[1]
		case !r.ignore && loc[1] > included:
			included = loc[1]
		}
	}
	if included == 0 && ignored == 0 {
		return !f.whitelist
	}
	return included > ignored
}
