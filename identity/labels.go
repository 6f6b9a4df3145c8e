// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// Labels is an immutable set of labels with one label per key. The zero value is the empty set.
type Labels struct {
	list []Label // sorted by key
	text string  // wire form
}

// NewLabels returns the set of the labels. Of several with the same key the last counts, whatever
// their sources: the wire form has room for one.
func NewLabels(labels ...Label) Labels {
	byKey := make(map[string]Label, len(labels))
	for _, l := range labels {
		byKey[l.Key] = l
	}
	var s Labels
	n := 0
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		l := byKey[key]
		s.list = append(s.list, l)
		n += len(l.Source) + len(l.Key) + len(l.Value) + 3
	}
	var b strings.Builder
	b.Grow(n)
	for _, l := range s.list {
		b.WriteString(l.Source)
		b.WriteByte(':')
		b.WriteString(l.Key)
		b.WriteByte('=')
		b.WriteString(l.Value)
		b.WriteByte(';')
	}
	s.text = b.String()
	return s
}

// ParseLabels reads the wire form. It is lenient, since the string stands in a store that others
// write: a part without a source has SourceUnspec, one without an equals sign an empty value. What
// it returns may have another wire form than the text.
func ParseLabels(text string) (Labels, error) {
	var labels []Label
	for part := range strings.SplitSeq(text, ";") {
		if part == "" {
			continue
		}
		l, err := ParseLabel(part, SourceUnspec)
		if err != nil {
			return Labels{}, fmt.Errorf("labels %q: %w", text, err)
		}
		labels = append(labels, l)
	}
	return NewLabels(labels...), nil
}

// LabelsOf returns the labels of an endpoint row: "[source:]key" to value, SourceKubernetes where
// no source is given.
func LabelsOf(m map[string]string) (Labels, error) {
	labels := make([]Label, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		l, err := ParseLabel(name, SourceKubernetes)
		if err != nil || strings.Contains(name, "=") {
			return Labels{}, fmt.Errorf("label %q: not [source:]key", name)
		}
		l.Value = m[name]
		labels = append(labels, l)
	}
	s := NewLabels(labels...)
	return s, s.Validate()
}

// Validate tells whether the set has a wire form that is read as the same set.
func (s Labels) Validate() error {
	for _, l := range s.list {
		if err := l.validate(); err != nil {
			return err
		}
	}
	return nil
}

// String returns the wire form: each label in order of its key, followed by a semicolon.
func (s Labels) String() string { return s.text }

// Len returns the number of labels.
func (s Labels) Len() int { return len(s.list) }

// All returns the labels in order of their keys.
func (s Labels) All() iter.Seq[Label] { return slices.Values(s.list) }

// Get returns the label with a key, whatever its source.
func (s Labels) Get(key string) (Label, bool) {
	i, ok := slices.BinarySearchFunc(s.list, key, func(l Label, k string) int { return strings.Compare(l.Key, k) })
	if !ok {
		return Label{}, false
	}
	return s.list[i], true
}

// Has tells whether the set has a label; SourceAny in the argument stands for every source.
func (s Labels) Has(want Label) bool {
	l, ok := s.Get(want.Key)
	return ok && l.Value == want.Value && (want.Source == SourceAny || want.Source == l.Source)
}

// Equal tells whether two sets are the same.
func (s Labels) Equal(o Labels) bool { return slices.Equal(s.list, o.list) }

// With returns the set with more labels; those given replace those with the same key.
func (s Labels) With(labels ...Label) Labels { return NewLabels(slices.Concat(s.list, labels)...) }

// Map returns the set as "source:key" to value, the form of endpoint rows.
func (s Labels) Map() map[string]string {
	m := make(map[string]string, len(s.list))
	for _, l := range s.list {
		m[l.FullKey()] = l.Value
	}
	return m
}

// ForEndpoint returns the labels that decide an endpoint's identity: those of its own that the
// filter lets through, and where it is. An empty namespace or service account adds nothing.
func ForEndpoint(cluster, namespace, serviceAccount string, all Labels, f *Filter) Labels {
	extra := []Label{{SourceKubernetes, ClusterKey, cluster}}
	if namespace != "" {
		extra = append(extra, Label{SourceKubernetes, NamespaceKey, namespace})
	}
	if serviceAccount != "" {
		extra = append(extra, Label{SourceKubernetes, ServiceAccountKey, serviceAccount})
	}
	return f.Apply(all).With(extra...)
}
