// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package weft

import (
	"go/parser"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

var (
	metricName = regexp.MustCompile(`weft_[a-z0-9_]+`)
	// A metric is named in one literal, or by a package's prefix and the name given to what makes it.
	wholeMetric  = regexp.MustCompile(`"(weft_[a-z0-9_]+)"`)
	metricPrefix = regexp.MustCompile(`NewDesc\("(weft_[a-z0-9_]+_)"\s*\+`)
	metricTail   = regexp.MustCompile(`(?:desc(?:ribe)?|gauge|counter)\("([a-z0-9_]+)"`)
)

// TestAlerts_MetricsExist holds the alerting rules to metrics that the code exports, and to runbooks
// that exist.
func TestAlerts_MetricsExist(t *testing.T) {
	text, err := os.ReadFile("deploy/alerts/weft.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string `json:"name"`
			Rules []struct {
				Alert       string            `json:"alert"`
				Expr        string            `json:"expr"`
				For         string            `json:"for"`
				Labels      map[string]string `json:"labels"`
				Annotations map[string]string `json:"annotations"`
			} `json:"rules"`
		} `json:"groups"`
	}
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		t.Fatal(err)
	}
	exported := metricsOf(t)
	alerts := map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			alerts[r.Alert] = true
			names := metricName.FindAllString(r.Expr, -1)
			if len(names) == 0 {
				t.Errorf("%s looks at no metric", r.Alert)
			}
			for _, n := range names {
				if !exported[n] {
					t.Errorf("%s looks at %s, which nobody exports", r.Alert, n)
				}
			}
			if r.Labels["severity"] == "" || r.Annotations["summary"] == "" {
				t.Errorf("%s has no severity or no summary", r.Alert)
			}
			if _, err := os.Stat(r.Annotations["runbook"]); err != nil {
				t.Errorf("%s: %v", r.Alert, err)
			}
		}
	}
	if len(alerts) < 10 {
		t.Errorf("only %d alerts", len(alerts))
	}
	// The runbooks name alerts; those must exist.
	pages, err := filepath.Glob("docs/runbooks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range regexp.MustCompile(`\bWeft[A-Z]\w+`).FindAllString(string(text), -1) {
			if !alerts[n] {
				t.Errorf("%s names the alert %s, which does not exist", page, n)
			}
		}
	}
}

// metricsOf reads the names of all metrics from the source.
func metricsOf(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	prefixes, tails := map[string]string{}, map[string][]string{}
	goFiles(t, parser.PackageClauseOnly, func(file string, _ *ast) {
		if strings.HasSuffix(file, "_test.go") {
			return
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
			return
		}
		dir := filepath.Dir(file)
		for _, m := range wholeMetric.FindAllSubmatch(b, -1) {
			found[string(m[1])] = true
		}
		if m := metricPrefix.FindSubmatch(b); m != nil {
			prefixes[dir] = string(m[1])
		}
		for _, m := range metricTail.FindAllSubmatch(b, -1) {
			tails[dir] = append(tails[dir], string(m[1]))
		}
	})
	for dir, prefix := range prefixes {
		for _, tail := range tails[dir] {
			found[prefix+tail] = true
		}
	}
	return found
}
