// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

// Package configfile reads the YAML file of settings of a role of weft on top of its defaults. What
// the settings are, and which values are good, belongs to the role: it hands in a struct of pointers
// into its Config, one field for each key, and validates the Config afterwards. The etcd client file
// is not of its kind, package kvstore reads it. It is a leaf: everybody may import it.
package configfile

import (
	"fmt"
	"os"
	"time"

	"sigs.k8s.io/yaml"
)

// Read hands the bytes of a file to parse and returns the Config that parse made, also beside an
// error of parse. Errors begin with what, such as "operator configuration", and name the file.
func Read[Config any](what, file string, parse func([]byte) (Config, error)) (Config, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		var none Config
		return none, fmt.Errorf("%s: %w", what, err)
	}
	c, err := parse(b)
	if err != nil {
		return c, fmt.Errorf("%s %s: %w", what, file, err)
	}
	return c, nil
}

// Decode writes a YAML mapping through form, a pointer to a struct of pointers that are not nil,
// then sets the durations that the form has texts of. What a key says goes where its field points
// to; a key that is absent or null leaves that as it is. An error names the key where it is about
// one: an unknown key, one that is there twice, a value of another type, or the first text, in the
// order of durations, that is not one. Something may have been set by then.
func Decode(b []byte, form any, durations Durations) error {
	if err := yaml.UnmarshalStrict(b, form); err != nil {
		return err
	}
	for _, d := range durations {
		v, err := time.ParseDuration(d.text)
		if err != nil {
			return fmt.Errorf("%s: %q is not a duration; write it as 90s or 5m", d.key, d.text)
		}
		*d.to = v
	}
	return nil
}

// Durations are the settings of a form that are durations, in the order of their calls of Text. The
// zero value has none.
type Durations []*duration

type duration struct {
	key  string
	text string         // as the file has it; until then *to in words, which read back as the same
	to   *time.Duration // the setting
}

// Text returns what the form of a file points to for the key of a duration: Decode reads the text
// that it finds there into to.
func (ds *Durations) Text(key string, to *time.Duration) *string {
	d := &duration{key, to.String(), to}
	*ds = append(*ds, d)
	return &d.text
}
