// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
	"github.com/weft-net/weft/service"
)

// attempts bounds how often a transaction is tried again because somebody else wrote meanwhile.
const attempts = 16

// ErrContended says that others wrote the same rows at every attempt.
var ErrContended = errors.New("others keep writing the same rows: try again")

// ErrNoCIDR says that a service wants an address and nobody knows from where.
var ErrNoCIDR = errors.New("no service CIDR to take an address from: set service-cidrs, or write vips (an empty list makes the service headless)")

// TakenError says that a virtual address that was asked for belongs to another service.
type TakenError struct {
	Addr netip.Addr
	By   schema.DefinitionKey
}

// Error gives "virtual address 10.96.0.9 belongs to service default/db: …".
func (e *TakenError) Error() string {
	return fmt.Sprintf("virtual address %s belongs to service %s: choose another or leave vips out", e.Addr, e.By)
}

// Add writes a definition, new or in place of one of the same name, and the rows of its virtual
// addresses. If it asks for allocation it keeps the addresses that it has, and takes one of each family
// that it lacks from the CIDRs, in their order. The result is the definition as it stands in the
// store.
func Add(ctx context.Context, c *kvstore.Client, p service.Parsed, cidrs []netip.Prefix) (schema.Definition, error) {
	for range attempts {
		d, again, err := add(ctx, c, p, cidrs)
		if err != nil {
			return schema.Definition{}, fmt.Errorf("add service %s: %w", p.Key, err)
		}
		if !again {
			return d, nil
		}
	}
	return schema.Definition{}, fmt.Errorf("add service %s: %w", p.Key, ErrContended)
}

func add(ctx context.Context, c *kvstore.Client, p service.Parsed, cidrs []netip.Prefix) (d schema.Definition, again bool, err error) {
	old, unchanged, err := get(ctx, c, p.Key)
	if err != nil {
		return d, false, err
	}
	d = p.Definition
	if d.Extra == "" {
		d.Extra = old.Extra // members of a newer version survive
	}
	held, err := vips(ctx, c)
	if err != nil {
		return d, false, err
	}
	mine := schema.VIP{Namespace: p.Key.Namespace, Name: p.Key.Name}
	if p.Allocate {
		if d.VIPs, err = allocate(p.Key, old.VIPs, cidrs, held); err != nil {
			return d, false, err
		}
	}
	when := []clientv3.Cmp{unchanged}
	var then []clientv3.Op
	for _, a := range d.VIPs {
		have, ok := held[a]
		if ok && have.name() != p.Key {
			return d, false, &TakenError{a, have.name()}
		}
		when = append(when, clientv3.Compare(clientv3.ModRevision(vipKey(a)), "=", have.revision))
		if !ok {
			b, err := schema.VIPs().Encode(a, mine)
			if err != nil {
				return d, false, err
			}
			then = append(then, clientv3.OpPut(vipKey(a), string(b)))
		}
	}
	for _, a := range old.VIPs {
		if have, ok := held[a]; ok && have.name() == p.Key && !slices.Contains(d.VIPs, a) {
			when = append(when, clientv3.Compare(clientv3.ModRevision(vipKey(a)), "=", have.revision))
			then = append(then, clientv3.OpDelete(vipKey(a)))
		}
	}
	b, err := schema.Definitions().Encode(p.Key, d)
	if err != nil {
		return d, false, err
	}
	then = append(then, clientv3.OpPut(definitionKey(p.Key), string(b)))
	resp, err := c.Txn(ctx).If(when...).Then(then...).Commit()
	if err != nil {
		return d, false, err
	}
	return d, !resp.Succeeded, nil
}

// allocate keeps what the service has and takes what it lacks: of each family one address, from the
// first CIDR that has one left.
func allocate(key schema.DefinitionKey, old []netip.Addr, cidrs []netip.Prefix, held map[netip.Addr]holder) ([]netip.Addr, error) {
	if len(cidrs) == 0 && len(old) == 0 {
		return nil, ErrNoCIDR
	}
	out := slices.Clone(old)
	for _, v6 := range []bool{false, true} {
		if slices.ContainsFunc(out, func(a netip.Addr) bool { return a.Is6() == v6 }) {
			continue
		}
		var full error
		for _, cidr := range cidrs {
			if cidr.Addr().Is6() != v6 {
				continue
			}
			a, err := service.NextAddress(cidr, startOf(key, cidr), func(a netip.Addr) bool {
				_, taken := held[a]
				return taken
			})
			if full = err; err == nil {
				out = append(out, a)
				break
			}
		}
		if full != nil {
			return nil, full
		}
	}
	return out, nil
}

// startOf is where in the CIDR the search for a service's address begins: depending on its name, so
// that two that are added at once seldom meet, and one that is added again mostly gets what it had.
func startOf(key schema.DefinitionKey, cidr netip.Prefix) netip.Addr {
	h := fnv.New32a()
	h.Write([]byte(key.String()))
	sum := h.Sum32()
	b := cidr.Masked().Addr().AsSlice()
	for i := range 4 {
		at := len(b) - 1 - i
		free := min(8, max(0, (at+1)*8-cidr.Bits()))
		b[at] |= byte(sum>>(8*i)) & byte(1<<free-1)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Delete removes a definition and gives its virtual addresses back. The bool tells whether it was
// there.
func Delete(ctx context.Context, c *kvstore.Client, key schema.DefinitionKey) (bool, error) {
	for range attempts {
		old, unchanged, err := get(ctx, c, key)
		if err != nil {
			return false, fmt.Errorf("delete service %s: %w", key, err)
		}
		held, err := vips(ctx, c)
		if err != nil {
			return false, fmt.Errorf("delete service %s: %w", key, err)
		}
		when := []clientv3.Cmp{unchanged}
		then := []clientv3.Op{clientv3.OpDelete(definitionKey(key))}
		for _, a := range old.VIPs {
			if have, ok := held[a]; ok && have.name() == key {
				when = append(when, clientv3.Compare(clientv3.ModRevision(vipKey(a)), "=", have.revision))
				then = append(then, clientv3.OpDelete(vipKey(a)))
			}
		}
		resp, err := c.Txn(ctx).If(when...).Then(then...).Commit()
		if err != nil {
			return false, fmt.Errorf("delete service %s: %w", key, err)
		}
		if resp.Succeeded {
			return resp.Responses[0].GetResponseDeleteRange().Deleted > 0, nil
		}
	}
	return false, fmt.Errorf("delete service %s: %w", key, ErrContended)
}

// holder is who has a virtual address, and the revision of the row that says so.
type holder struct {
	schema.VIP
	revision int64
}

func (h holder) name() schema.DefinitionKey {
	return schema.DefinitionKey{Namespace: h.Namespace, Name: h.Name}
}

// vips reads all virtual addresses that are held. A row that cannot be read holds its address all
// the same: it was written by somebody for something.
func vips(ctx context.Context, c *kvstore.Client) (map[netip.Addr]holder, error) {
	codec := schema.VIPs()
	list, err := c.List(ctx, codec.Prefix, kvstore.ListOptions{})
	if err != nil {
		return nil, err
	}
	out := make(map[netip.Addr]holder, len(list.KVs))
	for _, kv := range list.KVs {
		a, err := codec.ParseKey(kv.Key[len(codec.Prefix):])
		if err != nil {
			continue
		}
		h := holder{revision: kv.ModRevision}
		if h.VIP, err = codec.Decode(a, kv.Value); err != nil {
			h.VIP = schema.VIP{Namespace: "?", Name: "?"}
		}
		out[a] = h
	}
	return out, nil
}

// get reads a definition with the comparison that says it is still the same. An unreadable one
// counts as empty, so that it can be replaced.
func get(ctx context.Context, c *kvstore.Client, key schema.DefinitionKey) (schema.Definition, clientv3.Cmp, error) {
	at := definitionKey(key)
	kv, ok, err := c.Get(ctx, at)
	if err != nil {
		return schema.Definition{}, clientv3.Cmp{}, err
	}
	if !ok {
		return schema.Definition{}, clientv3.Compare(clientv3.ModRevision(at), "=", 0), nil
	}
	d, err := schema.Definitions().Decode(key, kv.Value)
	if err != nil {
		d = schema.Definition{}
	}
	return d, clientv3.Compare(clientv3.ModRevision(at), "=", kv.ModRevision), nil
}

func definitionKey(k schema.DefinitionKey) string {
	c := schema.Definitions()
	return c.Prefix + c.FormatKey(k)
}

func vipKey(a netip.Addr) string {
	c := schema.VIPs()
	return c.Prefix + c.FormatKey(a)
}
