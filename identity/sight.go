// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/kvstore/schema"
)

// reference is a node's word that it uses a number for a set.
type reference struct {
	key string
	id  ID
}

// sight is what a transaction that failed saw of a set.
type sight struct {
	refs    []reference
	junk    bool // something stands there, but nothing that is a reference
	locked  bool
	master  []byte // labels of the number that was tried; nil: it is free
	resting int64  // revision of the row that says that it rests; 0: it does not
	rested  string // labels it rests from
}

// look returns the operations whose answers saw reads.
func (t trial) look(id ID) []clientv3.Op {
	return []clientv3.Op{
		clientv3.OpGet(schema.IdentityReferencesPrefix(t.text), clientv3.WithPrefix()),
		clientv3.OpGet(schema.IdentityLockPath(t.text)+"/", clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(1)),
		clientv3.OpGet(schema.IdentityMasterKey(uint32(id))),
		clientv3.OpGet(restingKey(id)),
	}
}

func (t trial) saw(answers []*pb.ResponseOp) sight {
	var s sight
	s.refs = t.references(answers[0].GetResponseRange())
	s.junk = len(s.refs) == 0 && len(answers[0].GetResponseRange().Kvs) > 0
	s.locked = len(answers[1].GetResponseRange().Kvs) > 0
	if kvs := answers[2].GetResponseRange().Kvs; len(kvs) > 0 {
		s.master = append([]byte{}, kvs[0].Value...)
	}
	if kvs := answers[3].GetResponseRange().Kvs; len(kvs) > 0 {
		s.resting = kvs[0].ModRevision
		// A row that cannot be read rests from labels that nobody knows.
		if k, err := t.restings.ParseKey(string(kvs[0].Key[len(t.restings.Prefix):])); err == nil {
			if r, err := t.restings.Decode(k, kvs[0].Value); err == nil {
				s.rested = r.Labels
			}
		}
	}
	return s
}

// references reads the references to a set. What lies deeper than one name below its prefix is of
// other labels, and what is no number of this cluster is of no use.
func (t trial) references(r *pb.RangeResponse) []reference {
	var refs []reference
	prefix := schema.IdentityReferencesPrefix(t.text)
	for _, kv := range r.Kvs {
		key := string(kv.Key)
		if strings.Contains(key[len(prefix):], "/") {
			continue
		}
		n, err := schema.DecodeIdentityReference(key, kv.Value)
		if err != nil || !t.known.inRange(ID(n)) {
			continue
		}
		refs = append(refs, reference{key: key, id: ID(n)})
	}
	return refs
}
