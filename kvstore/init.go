// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package kvstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore/schema"
)

// InitConfig says what a store is prepared for. Cluster is required.
type InitConfig struct {
	// Cluster is the name of the cluster whose store it is.
	Cluster string
	// Nodes are the nodes that get a user. A later Init may name more; none is ever removed.
	Nodes []string
	// Remotes are clusters that get a user of their own, beside the one for all of them.
	Remotes []string
	// NoAuth leaves auth as it is: everybody whose certificate etcd accepts may do everything, and
	// so may everybody where no certificate is asked for.
	NoAuth bool
}

// InitStep is one thing that Init looked at.
type InitStep struct {
	Subject string // "user node-a1", "role remote: read cilium/state/*", "epoch …", "auth"
	Done    bool   // by this Init; else it was there
}

// InitReport is what Init did.
type InitReport struct {
	Epoch string
	Steps []InitStep
	// Surplus are rights that roles of ours have beyond what weft gives them. They are left.
	Surplus []string
}

// Init prepares a store: the epoch, the roles and users by certificate name, and auth. It may be
// repeated at any time, and then adds what is missing. Once auth is on it needs a certificate of
// UserRoot or UserAdmin.
func Init(ctx context.Context, c *Client, cfg InitConfig) (InitReport, error) {
	var report InitReport
	if err := schema.CheckClusterName(cfg.Cluster); err != nil {
		return report, fmt.Errorf("init store: %w", err)
	}
	for _, n := range cfg.Nodes {
		if n == "" || strings.Contains(n, "/") {
			return report, fmt.Errorf("init store: node name %q is empty or has a slash", n)
		}
	}
	for _, r := range cfg.Remotes {
		if err := schema.CheckClusterName(r); err != nil {
			return report, fmt.Errorf("init store: remote: %w", err)
		}
	}
	in := &initRun{c: c, report: &report}
	for _, step := range []func(context.Context) error{
		in.epoch,
		func(ctx context.Context) error { return in.accounts(ctx, cfg) },
		func(ctx context.Context) error { return in.auth(ctx, cfg) },
	} {
		if err := step(ctx); err != nil {
			return report, fmt.Errorf("init store: %w", err)
		}
	}
	return report, nil
}

// initRun is one Init.
type initRun struct {
	c      *Client
	report *InitReport
}

// say records a step.
func (in *initRun) say(done bool, format string, args ...any) {
	in.report.Steps = append(in.report.Steps, InitStep{fmt.Sprintf(format, args...), done})
}

// do runs one request; one of the errors given means that there is nothing to do any more.
func (in *initRun) do(ctx context.Context, step string, request func(context.Context) error, already ...error) (done bool, err error) {
	err = in.c.do(ctx, step, request)
	for _, a := range already {
		if errors.Is(err, a) {
			return false, nil
		}
	}
	return err == nil, err
}

func (in *initRun) epoch(ctx context.Context) error {
	var random [16]byte
	rand.Read(random[:])
	value, err := schema.EncodeEpoch(schema.Epoch{ID: hex.EncodeToString(random[:]), Created: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	resp, err := in.c.Txn(ctx).If(clientv3.Compare(clientv3.Version(schema.EpochKey), "=", 0)).
		Then(clientv3.OpPut(schema.EpochKey, string(value))).
		Else(clientv3.OpGet(schema.EpochKey)).Commit()
	if err != nil {
		return fmt.Errorf("epoch: %w", err)
	}
	if !resp.Succeeded {
		value = resp.Responses[0].GetResponseRange().Kvs[0].Value
	}
	epoch, err := schema.DecodeEpoch(value)
	if err != nil {
		return fmt.Errorf("epoch: %w", err)
	}
	in.report.Epoch = epoch.ID
	in.say(resp.Succeeded, "epoch %s", epoch.ID)
	return nil
}

func (in *initRun) accounts(ctx context.Context, cfg InitConfig) error {
	roles, users := accounts(cfg)
	for _, r := range roles {
		if err := in.role(ctx, r); err != nil {
			return err
		}
	}
	for _, u := range users {
		if err := in.user(ctx, u); err != nil {
			return err
		}
	}
	return nil
}

func (in *initRun) role(ctx context.Context, r role) error {
	created, err := in.do(ctx, "add role "+r.name, func(ctx context.Context) error {
		_, err := in.c.etcd.RoleAdd(ctx, r.name)
		return err
	}, rpctypes.ErrRoleAlreadyExist)
	if err != nil {
		return err
	}
	in.say(created, "role %s", r.name)
	have := map[permission]bool{}
	if _, err := in.do(ctx, "read role "+r.name, func(ctx context.Context) error {
		resp, err := in.c.etcd.RoleGet(ctx, r.name)
		if err != nil {
			return err
		}
		for _, p := range resp.Perm {
			write := p.PermType != authpb.READ
			have[permission{string(p.Key), string(p.RangeEnd), write}] = true
		}
		return nil
	}); err != nil {
		return err
	}
	for _, p := range r.rights {
		if have[p] {
			delete(have, p)
			in.say(false, "role %s: %s", r.name, p)
			continue
		}
		if _, err := in.do(ctx, "grant to role "+r.name, func(ctx context.Context) error {
			_, err := in.c.etcd.RoleGrantPermission(ctx, r.name, p.from, p.to, p.kind())
			return err
		}); err != nil {
			return err
		}
		delete(have, permission{p.from, p.to, !p.write}) // the grant replaced it
		in.say(true, "role %s: %s", r.name, p)
	}
	for p := range have {
		in.report.Surplus = append(in.report.Surplus, fmt.Sprintf("role %s: %s", r.name, p))
	}
	slices.Sort(in.report.Surplus)
	return nil
}

func (in *initRun) user(ctx context.Context, u user) error {
	created, err := in.do(ctx, "add user "+u.name, func(ctx context.Context) error {
		_, err := in.c.etcd.UserAddWithOptions(ctx, u.name, "", &clientv3.UserAddOptions{NoPassword: true})
		return err
	}, rpctypes.ErrUserAlreadyExist)
	if err != nil {
		return err
	}
	in.say(created, "user %s", u.name)
	for _, r := range u.roles {
		// Granting a role twice is no error, and by the reply nobody can tell.
		if _, err := in.do(ctx, "give role "+r+" to user "+u.name, func(ctx context.Context) error {
			_, err := in.c.etcd.UserGrantRole(ctx, u.name, r)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func (in *initRun) auth(ctx context.Context, cfg InitConfig) error {
	enabled := false
	if _, err := in.do(ctx, "read the state of auth", func(ctx context.Context) error {
		resp, err := in.c.etcd.AuthStatus(ctx)
		if err == nil {
			enabled = resp.Enabled
		}
		return err
	}); err != nil {
		return err
	}
	if cfg.NoAuth && !enabled {
		return nil
	}
	if !enabled {
		if !in.c.cfg.secure() {
			return errors.New("auth: the endpoints are http, so nobody would have a certificate name and nobody could get in: " +
				"use https, or leave auth off")
		}
		if _, err := in.do(ctx, "enable auth", func(ctx context.Context) error {
			_, err := in.c.etcd.AuthEnable(ctx)
			return err
		}); err != nil {
			return err
		}
	}
	in.say(!enabled, "auth")
	return nil
}
