// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"sigs.k8s.io/yaml"

	"github.com/weft-net/weft/internal/configfile"
)

// maxConfigFile bounds the file, in bytes: a file that is larger is not ours.
const maxConfigFile = 1 << 20

// ReadConfig returns defaults, overlaid with the file (if file is not empty) and
// with the environment. It does not validate: flags come on top of it. Where the
// error is about settings (*ConfigError), the Config has all the others, so that
// what else is wrong can be told at once.
func ReadConfig(file string, env func(string) (string, bool)) (Config, error) {
	c := DefaultConfig()
	var errs []error
	if file != "" {
		var err error
		c, err = configfile.Read("config", file, func(data []byte) (Config, error) {
			err := c.ApplyYAML(data)
			return c, err
		})
		var setting *ConfigError
		if err != nil && !errors.As(err, &setting) {
			return Config{}, err
		}
		errs = append(errs, err)
	}
	errs = append(errs, c.ApplyEnv(env))
	return c, errors.Join(errs...)
}

// Besides leaves out of found, an error of Validate, what is about settings that
// an error of ReadConfig named: they were not set, so nothing can be said of them.
func Besides(read, found error) error {
	named := map[string]bool{}
	for _, e := range configErrors(read) {
		named[strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(e.Key, "WEFT_")), "_", "-")] = true
	}
	var rest []error
	for _, e := range configErrors(found) {
		if !named[e.Key] {
			rest = append(rest, e)
		}
	}
	return errors.Join(rest...)
}

// configErrors lists the ConfigErrors in a tree of errors, in their order.
func configErrors(err error) []*ConfigError {
	switch e := err.(type) {
	case *ConfigError:
		return []*ConfigError{e}
	case interface{ Unwrap() error }:
		return configErrors(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []*ConfigError
		for _, x := range e.Unwrap() {
			all = append(all, configErrors(x)...)
		}
		return all
	}
	return nil
}

// Nearest is the known word that is next to a wrong one; false where none is near.
func Nearest(word string, known []string) (string, bool) {
	best, distance := "", 4
	for _, k := range known {
		if d := editDistance(word, k); d < distance {
			best, distance = k, d
		}
	}
	return best, best != ""
}

// ApplyEnv sets what WEFT_* variables say; env is os.LookupEnv.
func (c *Config) ApplyEnv(env func(string) (string, bool)) error {
	var errs []error
	for _, s := range c.Settings() {
		v, ok := env(s.Env())
		if !ok {
			continue
		}
		if err := s.Value.Set(v); err != nil {
			errs = append(errs, &ConfigError{Key: s.Env(), Reason: err.Error(), Hint: s.Help})
		}
	}
	return errors.Join(errs...)
}

// ApplyYAML sets what a YAML mapping says: the keys are those of Settings,
// values are scalars or lists of scalars. Unknown and double keys are errors.
// Every wrong key is reported, joined; c may be half set then.
func (c *Config) ApplyYAML(data []byte) error {
	if len(data) > maxConfigFile {
		return fmt.Errorf("%d bytes are more than %d", len(data), maxConfigFile)
	}
	if !utf8.Valid(data) {
		return errors.New("not UTF-8 text")
	}
	doc, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return fmt.Errorf("not YAML: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	var values map[string]any
	if err := dec.Decode(&values); err != nil {
		return errors.New("not a mapping: write one 'key: value' per line")
	}
	settings := map[string]Setting{}
	for _, s := range c.Settings() {
		settings[s.Key] = s
	}
	var errs []error
	for _, key := range sortedKeys(values) {
		s, ok := settings[key]
		if !ok {
			errs = append(errs, &ConfigError{Key: key, Reason: "is unknown", Hint: suggest(key, sortedKeys(settings))})
			continue
		}
		if err := setAny(s.Value, values[key]); err != nil {
			errs = append(errs, &ConfigError{Key: key, Reason: err.Error(), Hint: s.Help})
		}
	}
	return errors.Join(errs...)
}

func setAny(v Value, x any) error {
	items, isList := x.([]any)
	l, wantList := v.(listValue)
	switch {
	case isList && !wantList:
		return fmt.Errorf("is a list, want one %s", v.Type())
	case isList:
		var texts []string
		for _, item := range items {
			t, err := scalar(item)
			if err != nil {
				return err
			}
			texts = append(texts, t)
		}
		return l.SetList(texts)
	case x == nil && wantList:
		return l.SetList(nil)
	}
	t, err := scalar(x)
	if err != nil {
		return err
	}
	return v.Set(t)
}

func scalar(x any) (string, error) {
	switch x := x.(type) {
	case string:
		return x, nil
	case json.Number:
		return x.String(), nil
	case bool:
		return fmt.Sprint(x), nil
	case nil:
		return "", errors.New("is empty")
	default:
		return "", errors.New("is a mapping, want a value")
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// suggest names the known key nearest to an unknown one.
func suggest(key string, known []string) string {
	best, ok := Nearest(strings.ToLower(strings.ReplaceAll(key, "_", "-")), known)
	if !ok {
		return "'weft agent --help' lists all settings"
	}
	return fmt.Sprintf("did you mean %s?", best)
}

func editDistance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
