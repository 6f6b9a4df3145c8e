// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import "time"

// BackupKey holds what is known of the last backup of the store. It is not leased.
const BackupKey = "weft/v1/backup"

// Backup tells of one backup that was taken and verified. It is comparable.
type Backup struct {
	// At is when, by the clock of Host.
	At time.Time
	// Revision is the newest one in the file.
	Revision int64
	// Size is that of the file, in bytes.
	Size int64
	// Host is where the file was written.
	Host  string
	Extra Extra
}

type wireBackup struct {
	At       time.Time `json:"at"`
	Revision int64     `json:"revision"`
	Size     int64     `json:"size"`
	Host     string    `json:"host,omitempty"`
}

// EncodeBackup writes the value of BackupKey.
func EncodeBackup(b Backup) ([]byte, error) {
	if err := checkBackup(b); err != nil {
		return nil, err
	}
	return encodeOwn(BackupKey, wireBackup{b.At.UTC().Truncate(time.Second), b.Revision, b.Size, b.Host}, b.Extra)
}

// DecodeBackup is the inverse of EncodeBackup.
func DecodeBackup(data []byte) (Backup, error) {
	var w wireBackup
	extra, err := decodeOwn(BackupKey, data, &w)
	if err != nil {
		return Backup{}, err
	}
	b := Backup{At: w.At.UTC().Truncate(time.Second), Revision: w.Revision, Size: w.Size, Host: w.Host, Extra: extra}
	return b, checkBackup(b)
}

func checkBackup(b Backup) error {
	switch {
	case b.At.IsZero():
		return invalid(BackupKey, "no time")
	case b.Revision < 1:
		return invalid(BackupKey, "revision %d is below 1", b.Revision)
	case b.Size < 0:
		return invalid(BackupKey, "size %d is below 0", b.Size)
	}
	return nil
}
