// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

// The compiler is Debian's clang-19: another version makes other bytes. The object holds no path
// of the machine it was built on.
//
//go:generate go tool bpf2go -go-package bpf -output-suffix "" -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -type flow_key -type flow -type flow_state -type endpoint -type address_key -type prefix_key -type ipcache_entry -type ipcache_flags -type node -type node_flags -type frontend_key -type frontend -type backend_key -type backend -type fragment_key -type fragment -type settings -type device -type hop -type counter -type direction -type flow_event -type event_kind weft weft.c -- -O2 -g -mcpu=v3 -std=gnu11 -nostdinc -Wall -Wextra -Wno-unused-function -Wno-unused-parameter -Wno-unused-const-variable -Wno-sign-compare -Werror -fno-strict-aliasing
//go:generate go tool bpf2go -go-package bpf -output-suffix "" -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types -type namespace -type socket_key -type socket_name -type socket_count -type socket_address sock sock.c -- -O2 -g -mcpu=v3 -std=gnu11 -nostdinc -Wall -Wextra -Wno-unused-function -Wno-unused-parameter -Wno-unused-const-variable -Wno-sign-compare -Werror -fno-strict-aliasing
//go:generate go run ./internal/drops -header lib/drop.h -go reasons.go -doc ../docs/drops.md
