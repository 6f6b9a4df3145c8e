// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import "time"

// EncodeTime writes the value of the heartbeat and of synced marks. Readers look at when the row
// arrives, never at what it says, so that clocks need not agree.
func EncodeTime(t time.Time) []byte { return t.UTC().AppendFormat(nil, time.RFC3339) }

// DecodeTime is the inverse of EncodeTime, for status.
func DecodeTime(key string, b []byte) (time.Time, error) {
	if len(b) > 64 {
		return time.Time{}, invalid(key, "value has %d bytes, want a time", len(b))
	}
	t, err := time.Parse(time.RFC3339, string(b))
	if err != nil {
		return time.Time{}, invalid(key, "%q is not a time", clip(string(b), 64))
	}
	return t, nil
}
