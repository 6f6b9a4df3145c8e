// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"strings"
)

// The annotations of a service that decide about the mesh. Each has an older alias; where both
// stand, the first wins.
const (
	AnnotationGlobal        = "service.cilium.io/global"
	AnnotationGlobalAlias   = "io.cilium/global-service"
	AnnotationShared        = "service.cilium.io/shared"
	AnnotationSharedAlias   = "io.cilium/shared-service"
	AnnotationAffinity      = "service.cilium.io/affinity"
	AnnotationAffinityAlias = "io.cilium/service-affinity"
)

// Affinity says backends of which clusters a global service prefers. It is all or nothing: the
// others are used only while the preferred ones have nothing healthy.
type Affinity uint8

const (
	// AffinityNone uses the backends of all clusters alike.
	AffinityNone Affinity = iota
	// AffinityLocal uses other clusters only while no backend of ours is active.
	AffinityLocal
	// AffinityRemote uses ours only while no other cluster has a healthy backend.
	AffinityRemote
)

// String gives "none", "local" or "remote".
func (a Affinity) String() string {
	switch a {
	case AffinityLocal:
		return "local"
	case AffinityRemote:
		return "remote"
	default:
		return "none"
	}
}

// Options is what the annotations of a definition say.
type Options struct {
	// Global: the service takes backends of the same service in other clusters, and gives its own
	// to them if Shared.
	Global bool
	// Shared: other clusters may use our backends. Never true without Global.
	Shared bool
	// Affinity is none unless Global.
	Affinity Affinity
}

// Problem is something in a definition that was not taken as written.
type Problem struct {
	// Field is the path of the field, such as "annotations[service.cilium.io/affinity]".
	Field string
	// Text says what is wrong, what is done instead and what to write.
	Text string
}

// String gives "field: text".
func (p Problem) String() string { return p.Field + ": " + p.Text }

// ParseOptions reads the annotations of a service. A value that it does not know is reported, and
// taken as "false" (global, shared) or "none" (affinity): what any peer in the mesh makes of it.
func ParseOptions(annotations map[string]string) (Options, []Problem) {
	var o Options
	var problems []Problem
	truth := func(name, alias string, otherwise bool) bool {
		key, value, ok := annotation(annotations, name, alias)
		if !ok {
			return otherwise
		}
		switch strings.ToLower(value) {
		case "true":
			return true
		case "false":
			return false
		}
		problems = append(problems, Problem{
			Field: "annotations[" + key + "]",
			Text:  fmt.Sprintf("%q is not known and taken as \"false\": write \"true\" or \"false\"", value),
		})
		return false
	}
	o.Global = truth(AnnotationGlobal, AnnotationGlobalAlias, false)
	o.Shared = truth(AnnotationShared, AnnotationSharedAlias, true) && o.Global
	key, value, _ := annotation(annotations, AnnotationAffinity, AnnotationAffinityAlias)
	switch strings.ToLower(value) {
	case "", "none":
	case "local":
		o.Affinity = AffinityLocal
	case "remote":
		o.Affinity = AffinityRemote
	default:
		problems = append(problems, Problem{
			Field: "annotations[" + key + "]",
			Text:  fmt.Sprintf("%q is not known and taken as \"none\": write \"none\", \"local\" or \"remote\"", value),
		})
	}
	if !o.Global {
		o.Affinity = AffinityNone
	}
	return o, problems
}

func annotation(annotations map[string]string, name, alias string) (key, value string, ok bool) {
	if v, ok := annotations[name]; ok {
		return name, v, true
	}
	v, ok := annotations[alias]
	return alias, v, ok
}
