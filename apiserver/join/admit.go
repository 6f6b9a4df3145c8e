// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

const (
	// greetTime is how long a joiner may take until it has proven that it has the token.
	greetTime = 10 * time.Second
	// answerTime is how long it may take to sign for us.
	answerTime = time.Minute
	// seeTime is how long the other side's heartbeat is waited for before the conversation ends. The
	// server goes on looking for it afterwards.
	seeTime = 10 * time.Second
)

// errNotGood is all that one hears who has not proven to have a token: whether there is such a token,
// and what about it is wrong, is nobody else's business.
var errNotGood = &Refusal{
	Reason: "the token is not good here: it was taken back, is of another cluster or of another life of its store, or was altered",
	Todo:   "make a new one: weft mesh token create --for CLUSTER",
}

// admission is one conversation, as the issuer has it. Its steps are those of Server.admit.
type admission struct {
	*Server
	conn  *tls.Conn
	visit *visit
	log   *slog.Logger

	id    schema.TokenID
	token row[schema.Token]
	hello hello
	req   request
	facts Facts
	know  knowledge
	again bool // the same key has used the token before
	peer  schema.Peer
	chain trust.Chain // for the joiner
}

// admit has one conversation with a visitor on a connection, and closes it.
func (s *Server) admit(ctx context.Context, conn *tls.Conn, v *visit) {
	log := s.log.With("from", conn.RemoteAddr().String())
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.NetConn().Close() })
	defer stop()
	a := &admission{Server: s, conn: conn, visit: v, log: log}
	err := a.converse(ctx)
	var (
		refusal *Refusal
		by      *RefusedError
	)
	switch {
	case err == nil:
	case errors.As(err, &by):
		a.log.Warn("join given up by the other side", "reason", by.Refusal.Reason)
	case errors.As(err, &refusal):
		a.log.Warn("join refused", "reason", refusal.Reason)
		a.say(refusal)
	case a.token.mod == 0: // it has not proven to have a token: anybody who found the port
		a.log.Debug("join not begun", "error", err)
	default:
		a.log.Warn("join failed", "error", err)
		a.say(refuse("look at the API server's log there, and join again with the same token", "something went wrong: %v", err))
	}
}

// say sends the last message. There is nobody to tell if it does not arrive.
func (a *admission) say(r *Refusal) {
	_ = a.conn.SetDeadline(time.Now().Add(greetTime))
	_ = send(a.conn, kindRefusal, r)
}

func (a *admission) converse(ctx context.Context) error {
	for _, step := range []func(context.Context) error{a.greet, a.judge, a.approval, a.exchange} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// greet ends with a joiner that has proven to have a token.
func (a *admission) greet(ctx context.Context) error {
	_ = a.conn.SetDeadline(time.Now().Add(greetTime))
	if err := a.conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	body, err := receiveOnly(a.conn, kindHello)
	if err != nil {
		return err
	}
	proof, err := receiveOnly(a.conn, kindProof)
	if err != nil {
		return err
	}
	if a.hello, err = decode[hello](body); err != nil {
		return errNotGood
	}
	if a.id, err = schema.Tokens().ParseKey(a.hello.Token); err != nil {
		return errNotGood
	}
	token, err := read(ctx, a.client, schema.Tokens(), a.id)
	if err != nil {
		a.log.Warn("token not read", "error", err)
		return errNotGood
	}
	if token.mod == 0 || !proven(token.value.PublicKey, a.conn.ConnectionState(), body, proof) {
		return errNotGood
	}
	a.token = token
	a.visit.known()
	a.log = a.log.With("token", a.id.String(), "cluster", a.hello.clip())
	return nil
}

func (h hello) clip() string { return clip(h.Facts.Name, schema.MaxClusterName) }

// receiveOnly reads a message of a kind, for a reader that takes no other.
func receiveOnly(conn *tls.Conn, k kind) ([]byte, error) {
	got, body, err := receive(conn)
	if err == nil && got != k {
		err = errMessage
	}
	return body, err
}

// judge says whether the two clusters can be peers, and commits that they are: the token is used up and
// the peer is known in one transaction. If any peer changed since they were looked at, it is judged
// again.
func (a *admission) judge(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	t := a.token.value
	if time.Now().After(t.Expires) {
		return refuse("make a new one there: weft mesh token create --for "+t.Joiner,
			"the token has expired %s ago, by this cluster's clock", time.Since(t.Expires).Round(time.Second))
	}
	var err error
	if a.facts, err = a.hello.Facts.facts(); err != nil {
		return refuse("", "what the cluster says of itself cannot be: %v", err)
	}
	a.log = a.log.With("root", trust.FingerprintOf(a.facts.Root).String())
	switch {
	case a.facts.Name != t.Joiner:
		return refuse("make one there: weft mesh token create --for "+a.facts.Name,
			"the token is for cluster %s, not for %s", t.Joiner, a.facts.Name)
	case t.JoinerID != 0 && a.facts.ID != t.JoinerID:
		return refuse("make one there without --id, or with this one",
			"the token is for a cluster with the id %d, and %s has %d", t.JoinerID, a.facts.Name, a.facts.ID)
	}
	if a.req, err = parseRequest(a.hello.CSR, a.facts.Name); err != nil {
		return refuse("", "%v", err)
	}
	if a.again = t.UsedBy == a.req.hash; t.UsedBy != "" && !a.again {
		return refuse("make a new one there: weft mesh token create --for "+t.Joiner,
			"the token was used at %s: if that was not you, weft mesh leave %s there at once", t.UsedAt.Format(time.DateTime+" MST"), t.Joiner)
	}
	if !a.hello.OneWay {
		if err := reach(ctx, a.facts.Endpoints, a.facts.Root); err != nil {
			return refuse("see that "+a.settings.Cluster+" can reach them; or join with --one-way: then "+a.facts.Name+" sees "+a.settings.Cluster+", and not the other way",
				"the API servers of %s cannot be reached from here: %v", a.facts.Name, err)
		}
	}
	for tries := 1; ; tries++ {
		err := a.commit(ctx)
		if err == nil || !errors.Is(err, errChanged) || tries == 3 {
			return err
		}
	}
}

// commit is the one transaction.
func (a *admission) commit(ctx context.Context) error {
	var err error
	if a.know, err = learn(ctx, a.client, a.settings); err != nil {
		return err
	}
	if r := check(a.know.facts, a.facts, a.know.others); r != nil {
		return r
	}
	old := a.know.peers[a.facts.Name]
	state := schema.PeerPending
	switch {
	case a.again && old.State == schema.PeerLeft:
		return refuse("make a new token there: weft mesh token create --for "+a.facts.Name, "%s has left since it used the token", a.facts.Name)
	case a.again && old.State == "":
		return refuse("make a new token there: weft mesh token create --for "+a.facts.Name, "%s was forgotten since it used the token", a.facts.Name)
	case !a.again && old.State == schema.PeerJoined:
		return refuse("weft mesh leave "+a.facts.Name+" there first", "a cluster %s has joined already", a.facts.Name)
	case a.token.value.Approve && (!a.again || old.State == schema.PeerWaiting):
		state = schema.PeerWaiting
	}
	if !a.hello.OneWay && (old.State == "" || old.State == schema.PeerLeft) {
		f := files{a.settings.MeshDir, a.facts.Name}
		there, err := f.exists()
		if err != nil {
			return err
		}
		if there {
			return refuse("there: remove it to join with a token", "%s has a client file of %s already, which no join has made",
				a.settings.Cluster, a.facts.Name)
		}
	}
	a.peer = peerOf(a.facts, state, a.hello.OneWay, old, a.again)
	if state == schema.PeerPending {
		if err := a.sign(&a.peer); err != nil {
			return err
		}
	}
	used := a.token.value
	if !a.again {
		used.UsedBy, used.UsedAt = a.req.hash, time.Now()
	}
	useToken, err := put(schema.Tokens(), a.id, used)
	if err != nil {
		return err
	}
	admitPeer, err := put(schema.Peers(), a.facts.Name, a.peer)
	if err != nil {
		return err
	}
	// No peer was written since they were read: no other cluster has taken the id or the addresses.
	same := clientv3.Compare(clientv3.ModRevision(schema.PeersPrefix), "<", a.know.revision+1).WithPrefix()
	err = commit(ctx, a.client, "admit "+a.facts.Name, []clientv3.Cmp{unchanged(schema.Tokens(), a.id, a.token.mod), same}, useToken, admitPeer)
	if errors.Is(err, errChanged) {
		// Perhaps the token: it is judged anew by what it is now.
		token, rerr := read(ctx, a.client, schema.Tokens(), a.id)
		switch {
		case rerr != nil:
			return rerr
		case token.mod == 0:
			return errNotGood
		case token.value.UsedBy != "" && token.value.UsedBy != a.req.hash:
			return refuse("make a new one there: weft mesh token create --for "+a.facts.Name, "the token has just been used by somebody else")
		}
		a.token, a.again = token, token.value.UsedBy == a.req.hash
	}
	if err == nil {
		a.log.Info("join admitted", "state", state, "id", a.facts.ID, "code", a.code(), "one_way", a.hello.OneWay)
	}
	return err
}

func (a *admission) code() string { return Code(a.know.facts.Root.Raw, a.facts.Root.Raw) }

// sign makes the joiner's certificate and notes it in the peer's row.
func (a *admission) sign(p *schema.Peer) (err error) {
	if a.chain, err = a.settings.certify(a.req, a.know.facts.Root); err != nil {
		return err
	}
	return issued(p, a.chain[0])
}

// approval waits until somebody approves, where the token asks for it: until then there is no
// certificate.
func (a *admission) approval(ctx context.Context) error {
	if a.peer.State != schema.PeerWaiting {
		return nil
	}
	wait, cancel := context.WithDeadline(ctx, a.token.value.Expires)
	defer cancel()
	_ = a.conn.SetDeadline(time.Time{})
	tick := time.NewTicker(a.poll)
	defer tick.Stop()
	for {
		_ = a.conn.SetWriteDeadline(time.Now().Add(greetTime))
		if err := send(a.conn, kindWaiting, waiting{}); err != nil { // it also tells that the joiner is still there
			return err
		}
		select {
		case <-wait.Done():
			if ctx.Err() != nil {
				return ctx.Err() // the server ends
			}
			return refuse("make a new token there: weft mesh token create --for "+a.facts.Name, "nobody approved before the token expired")
		case <-tick.C:
		}
		p, err := read(ctx, a.client, schema.Peers(), a.facts.Name)
		switch {
		case err != nil:
			a.log.Warn("approval not read", "error", err)
		case p.mod == 0 || p.value.State == schema.PeerLeft:
			return refuse("", "the join was not approved")
		case p.value.State == schema.PeerPending:
			var signErr error
			a.peer, err = changePeer(ctx, a.client, a.facts.Name, func(p *schema.Peer) bool {
				if p.State != schema.PeerPending {
					signErr = refuse("", "the join is not approved any more")
				} else {
					signErr = a.sign(p)
				}
				return signErr == nil
			})
			return errors.Join(signErr, err)
		}
	}
}

// exchange gives the joiner its certificate and gets ours.
func (a *admission) exchange(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime+seeTime)
	defer cancel()
	_ = a.conn.SetDeadline(time.Now().Add(answerTime))
	f := files{a.settings.MeshDir, a.facts.Name}
	user := kvstore.UserRemoteCluster(a.settings.Cluster)
	o := offer{Chain: a.chain.DER(), Facts: a.know.facts.wire()}
	if a.hello.OneWay {
		if err := send(a.conn, kindOffer, o); err != nil {
			return err
		}
		if _, err := want[answer](a.conn, a.facts.Name, kindAnswer); err != nil {
			return err
		}
		if _, err := saw(ctx, a.client, a.facts.Name); err != nil {
			return err
		}
		return send(a.conn, kindResult, result{Seen: true})
	}
	key, csr, err := f.request(user)
	if err != nil {
		return err
	}
	o.CSR = csr
	if err := send(a.conn, kindOffer, o); err != nil {
		return err
	}
	ans, err := want[answer](a.conn, a.facts.Name, kindAnswer)
	if err != nil {
		return err
	}
	chain, err := received(ans.Chain, a.facts.Root, user, key)
	if err != nil {
		return refuse("weft cert doctor, there", "%s made a certificate that is not good: %v", a.facts.Name, err)
	}
	if err := f.write(a.facts.Endpoints, a.facts.Root, chain); err != nil {
		return err
	}
	a.log.Info("client file written", "file", f.client())
	_ = a.conn.SetDeadline(time.Now().Add(2 * seeTime))
	see, cancel := context.WithTimeout(ctx, seeTime)
	defer cancel()
	if err := awaitHeartbeat(see, f); err != nil {
		return send(a.conn, kindResult, result{Problem: err.Error()})
	}
	news, err := saw(ctx, a.client, a.facts.Name)
	if err != nil {
		return err
	}
	if news {
		a.log.Info("cluster joined")
	}
	return send(a.conn, kindResult, result{Seen: true})
}
