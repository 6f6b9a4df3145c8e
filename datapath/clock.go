// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// clockRate is the kernel's ticks per second: its coarse clock advances once a tick.
func clockRate() (uint32, error) {
	var res unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &res); err != nil {
		return 0, fmt.Errorf("resolution of the kernel's clock: %w", err)
	}
	ns := res.Nano()
	if ns <= 0 || ns > int64(time.Second) {
		return 0, errors.New("resolution of the kernel's clock: not a tick")
	}
	return uint32((int64(time.Second) + ns/2) / ns), nil
}

// monotonic is the kernel's clock that events carry.
func monotonic() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0 // cannot fail: the clock exists since Linux 2.6
	}
	return time.Duration(now.Nano())
}
