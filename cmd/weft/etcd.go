// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/spf13/pflag"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/service/store"
)

// storeTime bounds one request to a store: somebody waits at a prompt.
const storeTime = 5 * time.Second

// etcdFlags are those of commands that write to the store themselves. What is not
// given is asked of the agent behind --socket.
type etcdFlags struct {
	file  string
	cidrs []string
}

func (f *etcdFlags) add(a *app, flags *pflag.FlagSet) {
	flags.StringVar(&f.file, "etcd", a.getenv("WEFT_ETCD", ""), "etcd client file; default: the one of this node's agent (WEFT_ETCD)")
}

// open returns a client of the store, and the service CIDRs where the agent was
// asked. The caller closes.
func (f *etcdFlags) open(ctx context.Context, a *app) (*kvstore.Client, error) {
	if f.file == "" {
		c, conn, err := a.client()
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		s, err := c.Status(ctx, &api.StatusRequest{})
		if err != nil {
			return nil, hint(fmt.Errorf("which etcd? %w", err), "name its client file with --etcd FILE or WEFT_ETCD")
		}
		f.file = s.Etcd
		if len(f.cidrs) == 0 {
			f.cidrs = s.ServiceCidrs
		}
	}
	cfg, err := kvstore.ReadConfigFile(f.file)
	if err != nil {
		return nil, err
	}
	cfg.RequestTimeout = storeTime
	return kvstore.New(cfg, slog.New(slog.DiscardHandler))
}

// prefixes are the service CIDRs.
func (f *etcdFlags) prefixes() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range f.cidrs {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("service CIDR %q: use address/length", text)
		}
		out = append(out, p)
	}
	return out, nil
}

// storeHint says what to do about an error of the store.
func storeHint(err error) error {
	if errors.Is(err, store.ErrNoCIDR) {
		return hint(err, "name the ranges with --service-cidrs, or give the service 'vips'")
	}
	var at *kvstore.EndpointError
	if !errors.As(err, &at) {
		return err
	}
	switch at.Reason {
	case kvstore.ReasonUnauthorised:
		return hint(err, "use a certificate that may write, with --etcd FILE")
	case kvstore.ReasonFull:
		return hint(err, "weft store status, then weft store relieve --yes")
	case kvstore.ReasonCorrupt:
		return hint(err, "weft store status, and replace the member it names: docs/runbooks/member.md")
	case kvstore.ReasonUnreachable, kvstore.ReasonSilent:
		return hint(err, "weft status (on a node), or check that etcd runs at %s", at.Endpoint)
	}
	return hint(err, "check the files that --etcd names")
}
