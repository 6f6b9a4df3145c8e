// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"fmt"
	"time"
)

// Level is how bad a finding is.
type Level string

const (
	Good    Level = "good"
	Warning Level = "warning" // it works now
	Bad     Level = "bad"
)

// Cause says in a word what is wrong.
type Cause string

const (
	CauseExpired      Cause = "expired"
	CauseNotYet       Cause = "not-yet-valid"
	CauseEnding       Cause = "ends-soon"
	CauseName         Cause = "wrong-name"
	CauseCA           Cause = "wrong-ca"
	CauseIntermediate Cause = "intermediate-missing"
	CauseKey          Cause = "key-does-not-fit"
	CauseUsage        Cause = "wrong-use"
	CauseOrder        Cause = "wrong-order"
	CauseFile         Cause = "file"
	CauseMode         Cause = "readable-by-others"
	CauseRootKey      Cause = "root-key-is-here"
	CauseRotation     Cause = "rotation"
	CauseMerged       Cause = "merged-clusters"
	CauseUnreachable  Cause = "unreachable"
	CauseNoTLS        Cause = "no-tls"
	CauseRefused      Cause = "refused"
	CauseOther        Cause = "other"
)

// Finding is one thing that there is to say about certificates.
type Finding struct {
	Level   Level  `json:"level"`
	Cause   Cause  `json:"cause,omitempty"` // empty: nothing is wrong
	Subject string `json:"subject"`         // a file, or a server's address
	Text    string `json:"text"`
	Remedy  string `json:"remedy,omitempty"`
}

func good(subject, format string, args ...any) Finding {
	return Finding{Level: Good, Subject: subject, Text: fmt.Sprintf(format, args...)}
}

// away prints how far a time is from now, in the unit that fits.
func away(d time.Duration) string {
	if d = d.Abs(); d < 2*time.Hour {
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	} else if d < 48*time.Hour {
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
