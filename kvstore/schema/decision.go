// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import "time"

// DecisionKey holds what a person decided about rows that are held.
const DecisionKey = "weft/v1/decision"

// OperatorOwner is the name under which the operator says of the rows of the cluster what a node
// says of its own, in the owners' rows. No node can have it: node names have no such character.
const OperatorOwner = "@operator"

// DecisionAdopt says that what is in the store is the truth now: held rows go.
const DecisionAdopt = "adopt"

// Decision is the value of DecisionKey. It is comparable.
type Decision struct {
	// Decision is DecisionAdopt. A reader that does not know the word does nothing.
	Decision string
	// Revision is the store's when it was decided: rows held later are not meant.
	Revision int64
	// Epoch is the ID of the epoch it is about.
	Epoch string
	// By is who decided, for people.
	By string
	// At is when, by the clock of whoever decided.
	At    time.Time
	Extra Extra
}

type wireDecision struct {
	Decision string    `json:"decision"`
	Revision int64     `json:"revision"`
	Epoch    string    `json:"epoch"`
	By       string    `json:"by,omitempty"`
	At       time.Time `json:"at,omitzero"`
}

func checkDecision(d Decision) error {
	if d.Decision == "" || len(d.Decision) > 64 {
		return invalid(DecisionKey, "decision is empty or too long")
	}
	if d.Revision <= 0 {
		return invalid(DecisionKey, "revision %d is not positive", d.Revision)
	}
	return checkEpoch(DecisionKey, d.Epoch)
}

// EncodeDecision writes the value of DecisionKey.
func EncodeDecision(d Decision) ([]byte, error) {
	if err := checkDecision(d); err != nil {
		return nil, err
	}
	return encodeOwn(DecisionKey, wireDecision{d.Decision, d.Revision, d.Epoch, d.By, d.At.UTC().Truncate(time.Second)}, d.Extra)
}

// DecodeDecision is the inverse of EncodeDecision.
func DecodeDecision(b []byte) (Decision, error) {
	var w wireDecision
	extra, err := decodeOwn(DecisionKey, b, &w)
	if err != nil {
		return Decision{}, err
	}
	d := Decision{w.Decision, w.Revision, w.Epoch, w.By, w.At.UTC().Truncate(time.Second), extra}
	return d, checkDecision(d)
}
