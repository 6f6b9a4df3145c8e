// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseOptions(t *testing.T) {
	for name, c := range map[string]struct {
		in       map[string]string
		want     Options
		problems int
	}{
		"nothing":              {nil, Options{}, 0},
		"global":               {map[string]string{AnnotationGlobal: "true"}, Options{Global: true, Shared: true}, 0},
		"any-case":             {map[string]string{AnnotationGlobal: "TRUE", AnnotationAffinity: "Local"}, Options{true, true, AffinityLocal}, 0},
		"alias":                {map[string]string{AnnotationGlobalAlias: "true", AnnotationSharedAlias: "false", AnnotationAffinityAlias: "remote"}, Options{true, false, AffinityRemote}, 0},
		"alias-second":         {map[string]string{AnnotationGlobal: "false", AnnotationGlobalAlias: "true"}, Options{}, 0},
		"shared-needs-global":  {map[string]string{AnnotationShared: "true"}, Options{}, 0},
		"not-shared":           {map[string]string{AnnotationGlobal: "true", AnnotationShared: "False"}, Options{Global: true}, 0},
		"affinity-no-global":   {map[string]string{AnnotationAffinity: "local"}, Options{}, 0},
		"affinity-none":        {map[string]string{AnnotationGlobal: "true", AnnotationAffinity: "none"}, Options{true, true, AffinityNone}, 0},
		"affinity-empty":       {map[string]string{AnnotationGlobal: "true", AnnotationAffinity: ""}, Options{true, true, AffinityNone}, 0},
		"unknown-affinity":     {map[string]string{AnnotationGlobal: "true", AnnotationAffinity: "lokal"}, Options{true, true, AffinityNone}, 1},
		"unknown-global":       {map[string]string{AnnotationGlobal: "yes"}, Options{}, 1},
		"unknown-shared":       {map[string]string{AnnotationGlobal: "true", AnnotationShared: "1"}, Options{Global: true}, 1},
		"everything-misspelt":  {map[string]string{AnnotationGlobal: "t", AnnotationShared: "1", AnnotationAffinity: "x"}, Options{}, 3},
		"whitespace-is-a-typo": {map[string]string{AnnotationGlobal: "true "}, Options{}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got, problems := ParseOptions(c.in)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if len(problems) != c.problems {
				t.Errorf("problems: %v, want %d", problems, c.problems)
			}
		})
	}
}
