// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/status"
)

// user is the holder of a certificate name, with what it may read and what it takes.
type user struct {
	name     string
	rights   rights
	requests *rate.Limiter
	bytes    *rate.Limiter
	limits   Limits

	mu      sync.Mutex
	links   int
	streams int
	watches int
}

// users are those who were here, by name. Only names with rights are kept, so that their number is
// bounded by the certificates that were signed for them.
type users struct {
	cluster string
	limits  Limits

	mu     sync.Mutex
	byName map[string]*user
}

// of returns the user of a call. A name without rights may not read anything, but it may ask who
// answers. The error is a status.
func (us *users) of(ctx context.Context) (*user, error) {
	l := linkOf(ctx)
	if l == nil {
		return nil, rpctypes.ErrGRPCUserEmpty
	}
	if l.expired(time.Now()) {
		return nil, errExpired
	}
	return us.named(l.cert.Subject.CommonName), nil
}

// named returns the user of a name. Those without rights are one.
func (us *users) named(name string) *user {
	us.mu.Lock()
	defer us.mu.Unlock()
	if u := us.byName[name]; u != nil {
		return u
	}
	r := rightsOf(name, us.cluster)
	if r == nil {
		name = ""
		if u := us.byName[name]; u != nil {
			return u
		}
	}
	l := us.limits
	u := &user{
		name: name, rights: r, limits: l,
		requests: rate.NewLimiter(rate.Limit(l.Requests), max(1, int(l.Requests))),
		bytes:    rate.NewLimiter(rate.Limit(l.Bytes), max(1, int(l.Bytes))),
	}
	us.byName[name] = u
	return u
}

// totals are the streams and watches of all users.
func (us *users) totals() (streams, watches int) {
	us.mu.Lock()
	defer us.mu.Unlock()
	for _, u := range us.byName {
		u.mu.Lock()
		streams, watches = streams+u.streams, watches+u.watches
		u.mu.Unlock()
	}
	return streams, watches
}

// request counts one request and refuses it when there are too many.
func (u *user) request() error {
	if !u.requests.Allow() {
		return rpctypes.ErrGRPCRequestTooManyRequests
	}
	return nil
}

// openLink counts a connection and reports whether it may be.
func (u *user) openLink() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.links >= u.limits.Connections {
		return false
	}
	u.links++
	return true
}

func (u *user) closeLink() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.links--
}

// openStream counts a stream, until the returned function is called.
func (u *user) openStream() (end func(), err error) {
	if err := u.request(); err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.streams >= u.limits.Streams {
		return nil, rpctypes.ErrGRPCRequestTooManyRequests
	}
	u.streams++
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.streams--
	}, nil
}

// openWatch counts a watch and reports whether it may be.
func (u *user) openWatch() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.watches >= u.limits.Watches {
		return false
	}
	u.watches++
	return true
}

func (u *user) closeWatches(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.watches -= n
}

// spend waits until so many bytes may be sent. The error is a status: that of ctx, or that there are
// too many to be sent before its deadline.
func (u *user) spend(ctx context.Context, n int) error {
	err := u.bytes.WaitN(ctx, min(n, u.bytes.Burst()))
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	}
	return rpctypes.ErrGRPCRequestTooManyRequests
}
