// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// checkBytes refuses what no value may be, whatever its kind. encoding/json would silently replace
// invalid UTF-8, so that two different names could become one.
func checkBytes(key string, b []byte) error {
	if len(b) > MaxValue {
		return invalid(key, "value has %d bytes, more than %d", len(b), MaxValue)
	}
	if !utf8.Valid(b) {
		return invalid(key, "value is not valid UTF-8")
	}
	return nil
}

// decodeJSON parses a value into its wire form. Unknown members are no error.
func decodeJSON(key string, b []byte, wire any) error {
	if err := checkBytes(key, b); err != nil {
		return err
	}
	if err := json.Unmarshal(b, wire); err != nil {
		var typ *json.UnmarshalTypeError
		if errors.As(err, &typ) {
			return invalid(key, "member %q is a JSON %s, want %s", typ.Field, typ.Value, typ.Type)
		}
		return invalid(key, "not JSON: %v", err)
	}
	// null is legal JSON for any wire form, and leaves it empty; an array is a type error above.
	if t := bytes.TrimLeft(b, " \t\r\n"); t[0] != '{' {
		return invalid(key, "not a JSON object")
	}
	return nil
}

// encodeJSON writes a wire form. It uses json.Marshal's escaping, because other writers do.
func encodeJSON(key string, wire any) ([]byte, error) {
	b, err := json.Marshal(wire)
	if err != nil {
		return nil, invalid(key, "%v", err)
	}
	if len(b) > MaxValue {
		return nil, invalid(key, "value has %d bytes, more than %d", len(b), MaxValue)
	}
	return b, nil
}

// decodeOwn is decodeJSON for weft's own rows: it also returns the members that wire does not have.
func decodeOwn(key string, b []byte, wire any) (Extra, error) {
	if err := decodeJSON(key, b, wire); err != nil {
		return "", err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return "", invalid(key, "not a JSON object: %v", err)
	}
	known := memberNames(wire)
	var extra []string
	for name, raw := range members {
		// encoding/json matches names without regard to case, and so must this.
		if slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, name) }) {
			continue
		}
		quoted, err := json.Marshal(name)
		if err != nil {
			return "", invalid(key, "member %q: %v", name, err)
		}
		var buf bytes.Buffer
		buf.Write(quoted)
		buf.WriteByte(':')
		if err := json.Compact(&buf, raw); err != nil {
			return "", invalid(key, "member %q: %v", name, err)
		}
		extra = append(extra, buf.String())
	}
	slices.Sort(extra)
	return Extra(strings.Join(extra, ",")), nil
}

// encodeOwn writes a wire form, which must have at least one member, followed by the extra ones.
func encodeOwn(key string, wire any, extra Extra) ([]byte, error) {
	b, err := encodeJSON(key, wire)
	if err != nil || extra == "" {
		return b, err
	}
	b = append(b[:len(b)-1], ',')
	b = append(b, extra...)
	b = append(b, '}')
	if !json.Valid(b) {
		return nil, invalid(key, "extra members are not JSON")
	}
	if err := checkBytes(key, b); err != nil {
		return nil, err
	}
	return b, nil
}

// memberNames returns the JSON names of the fields of the struct that wire points to.
func memberNames(wire any) []string {
	t := reflect.TypeOf(wire).Elem()
	var names []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name == "" {
			name = t.Field(i).Name
		}
		names = append(names, name)
	}
	return names
}

// checkName refuses what cannot be one part of a key.
func checkName(key, what, name string) error {
	switch {
	case name == "":
		return invalid(key, "%s is empty", what)
	case len(name) > 253:
		return invalid(key, "%s has %d bytes, more than 253", what, len(name))
	case !utf8.ValidString(name):
		return invalid(key, "%s is not valid UTF-8", what)
	case name == "." || name == "..":
		return invalid(key, "%s is %q", what, name)
	case strings.ContainsFunc(name, func(r rune) bool { return r == '/' || r < ' ' || r == 0x7f }):
		return invalid(key, "%s %q has a slash or a control character", what, name)
	}
	return nil
}

// checkText refuses NUL, which separates packed text, and bytes that JSON cannot carry.
func checkText(key, what, s string) error {
	if strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s) {
		return invalid(key, "%s has a NUL or is not valid UTF-8", what)
	}
	return nil
}
