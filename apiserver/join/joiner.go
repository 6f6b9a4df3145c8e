// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// Joiner is the side of a join that has the token.
type Joiner struct {
	Client   *kvstore.Client // of its own store
	Settings Settings
	// OneWay: it reads the issuer and is not read by it.
	OneWay bool
	// Waiting is called once if somebody there has to approve, with the words to compare.
	Waiting func(code string)
	// Patience is how long it tries to reach the issuer: its door opens a moment after the token was
	// made. See is how long the issuer's heartbeat is waited for at the end.
	Patience, See time.Duration
}

// Joined is what came of a join.
type Joined struct {
	Cluster string
	ID      uint32
	Code    string // six words, the same on the other side
	Root    trust.Fingerprint
	Expires time.Time // of our certificate there
	// Seen is "" if the other side's heartbeat was seen here, else why not; SeenThere likewise there.
	Seen, SeenThere string
}

// Join joins the cluster that made the token. A *Refusal says why not, a *RefusedError that the other
// side says so. It may be run again after any error, with the same token.
func (j Joiner) Join(ctx context.Context, t Token) (Joined, error) {
	out, err := j.join(ctx, t)
	if err != nil {
		return Joined{}, fmt.Errorf("join %s: %w", t.Issuer, err)
	}
	return out, nil
}

// talk is one conversation, as the joiner has it.
type talk struct {
	Joiner
	token Token
	know  knowledge
	files files
	key   crypto.Signer
	csr   []byte
	conn  *tls.Conn
	root  *x509.Certificate // of the issuer
}

func (j Joiner) join(ctx context.Context, token Token) (Joined, error) {
	if err := j.Settings.Validate(); err != nil {
		return Joined{}, err
	}
	own := j.Settings.Cluster
	switch {
	case token.Joiner != own:
		return Joined{}, refuse("make one there: weft mesh token create --for "+own, "the token is for cluster %s, and this is %s", token.Joiner, own)
	case time.Now().After(token.Expires.Add(time.Minute)): // its clock decides, not ours
		return Joined{}, refuse("make a new one there: weft mesh token create --for "+own, "the token has expired at %s", token.Expires.Format(time.DateTime+" MST"))
	}
	t := &talk{Joiner: j, token: token, files: files{j.Settings.MeshDir, token.Issuer}}
	var err error
	if t.know, err = learn(ctx, j.Client, j.Settings); err != nil {
		return Joined{}, err
	}
	if token.JoinerID != 0 && token.JoinerID != t.know.facts.ID {
		return Joined{}, refuse("make one there without --id, or with this one", "the token is for the id %d, and this cluster has %d", token.JoinerID, t.know.facts.ID)
	}
	exists, err := t.files.exists()
	if err != nil {
		return Joined{}, err
	}
	switch state := t.know.peers[token.Issuer].State; {
	case state == schema.PeerJoined:
		return Joined{}, refuse("weft mesh status; or weft mesh leave "+token.Issuer+" first", "%s and %s have joined already", own, token.Issuer)
	case exists && state != schema.PeerPending:
		return Joined{}, refuse("remove it to join with a token", "there is a client file already: %s", t.files.client())
	}
	if t.key, t.csr, err = t.files.request(kvstore.UserRemoteCluster(own)); err != nil {
		return Joined{}, err
	}
	// What would fail after the other side has committed is tried before.
	if err := j.Settings.tryPeerCA(token.Issuer, t.know.facts.Root); err != nil {
		return Joined{}, err
	}
	if err := t.dial(ctx); err != nil {
		return Joined{}, err
	}
	defer t.conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = t.conn.NetConn().Close() })
	defer stop()
	out, err := t.converse(ctx)
	if ctx.Err() != nil && err != nil {
		return Joined{}, ctx.Err()
	}
	return out, err
}

// dial connects to the issuer, and goes no further than its certificate if it is another.
func (t *talk) dial(ctx context.Context) error {
	for end := time.Now().Add(t.Patience); ; {
		var errs []error
		for _, endpoint := range t.token.Endpoints {
			err := t.dialOne(ctx, endpoint)
			if err == nil {
				return nil
			}
			errs = append(errs, fmt.Errorf("%s: %w", endpoint, err))
		}
		err := errors.Join(errs...)
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Now().After(end) {
			return &Refusal{
				Reason: err.Error(),
				Todo:   "see that this machine can reach it, and that a token is open there: weft mesh token list",
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (t *talk) dialOne(ctx context.Context, endpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, greetTime)
	defer cancel()
	raw, err := (&net.Dialer{Timeout: reachTime}).DialContext(ctx, "tcp", endpoint)
	if err != nil {
		return err
	}
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{proofContext},
		InsecureSkipVerify: true, // the fingerprint in the token verifies it
		VerifyConnection: func(cs tls.ConnectionState) (err error) {
			t.root, err = trust.VerifyPinned(cs.PeerCertificates, t.token.Root, trust.MeshName(t.token.Issuer))
			return err
		},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return err
	}
	t.conn = conn
	return nil
}

func (t *talk) converse(ctx context.Context) (Joined, error) {
	issuer := t.token.Issuer
	// Until somebody has to approve, the other side answers as soon as it has looked at us.
	_ = t.conn.SetDeadline(time.Now().Add(2 * answerTime))
	if err := t.greet(); err != nil {
		return Joined{}, err
	}
	o, err := t.awaitOffer()
	if err != nil {
		return Joined{}, err
	}
	theirs, err := t.judge(o)
	if err != nil {
		return Joined{}, t.giveUp(err)
	}
	mine, err := received(o.Chain, theirs.Root, kvstore.UserRemoteCluster(t.Settings.Cluster), t.key)
	if err != nil {
		return Joined{}, t.giveUp(refuse("weft cert doctor, there", "%s made a certificate that is not good: %v", issuer, err))
	}
	ans, err := t.commit(ctx, theirs, o.CSR)
	if err != nil {
		return Joined{}, t.giveUp(err)
	}
	if err := t.files.write(theirs.Endpoints, theirs.Root, mine); err != nil {
		return Joined{}, t.giveUp(err)
	}
	if err := send(t.conn, kindAnswer, ans); err != nil {
		return Joined{}, err
	}
	out := Joined{
		Cluster: issuer, ID: theirs.ID, Code: Code(t.know.facts.Root.Raw, theirs.Root.Raw),
		Root: trust.FingerprintOf(theirs.Root), Expires: mine[0].NotAfter,
	}
	res, err := want[result](t.conn, issuer, kindResult)
	if err != nil {
		return Joined{}, err
	}
	if !res.Seen {
		out.SeenThere = "it does not see this cluster: " + clip(res.Problem, 512)
	}
	see, cancel := context.WithTimeout(ctx, max(t.See, time.Second))
	defer cancel()
	if err := awaitHeartbeat(see, t.files); err != nil {
		out.Seen = err.Error()
		return out, nil
	}
	_, err = saw(ctx, t.Client, issuer)
	return out, err
}

// giveUp tells the other side why this one stops, and returns that.
func (t *talk) giveUp(err error) error {
	var r *Refusal
	if !errors.As(err, &r) {
		r = refuse("", "something went wrong: %v", err)
	}
	_ = send(t.conn, kindRefusal, r)
	return err
}

// greet says who we are and proves that we have the token.
func (t *talk) greet() error {
	body, err := json.Marshal(hello{
		Token: t.token.ID.String(), Facts: t.know.facts.wire(), CSR: t.csr, OneWay: t.OneWay,
	})
	if err != nil {
		return err
	}
	proof, err := prove(t.token.Secret, t.conn.ConnectionState(), body)
	if err != nil {
		return err
	}
	if err := send(t.conn, kindHello, body); err != nil {
		return err
	}
	return send(t.conn, kindProof, proof)
}

// awaitOffer reads the offer, which comes after an approval where one is needed.
func (t *talk) awaitOffer() (offer, error) {
	for told := false; ; {
		k, body, err := receive(t.conn)
		switch {
		case err != nil:
			return offer{}, err
		case k == kindOffer:
			_ = t.conn.SetDeadline(time.Now().Add(2 * answerTime))
			return decode[offer](body)
		case k == kindRefusal:
			return offer{}, refused(t.token.Issuer, body)
		case k != kindWaiting:
			return offer{}, errMessage
		}
		_ = t.conn.SetDeadline(time.Now().Add(answerTime)) // the next one comes sooner
		if !told && t.Waiting != nil {
			t.Waiting(Code(t.know.facts.Root.Raw, t.root.Raw))
		}
		told = true
	}
}

// judge says whether the issuer is who the token says, and can be a peer by what we know.
func (t *talk) judge(o offer) (Facts, error) {
	theirs, err := o.Facts.facts()
	if err != nil {
		return Facts{}, refuse("", "what the cluster says of itself cannot be: %v", err)
	}
	if theirs.Name != t.token.Issuer || theirs.ID != t.token.IssuerID || trust.FingerprintOf(theirs.Root) != t.token.Root {
		return Facts{}, refuse("make a new one there", "the token is of cluster %s with the id %d, and %s with the id %d answers",
			t.token.Issuer, t.token.IssuerID, theirs.Name, theirs.ID)
	}
	if (len(o.CSR) == 0) != t.OneWay {
		return Facts{}, refuse("", "%s wants to read this cluster in another way than it was asked to", theirs.Name)
	}
	if r := check(t.know.facts, theirs, t.know.others); r != nil {
		return Facts{}, r
	}
	return theirs, nil
}

// commit stores the issuer as a peer and signs what it asks for.
func (t *talk) commit(ctx context.Context, theirs Facts, csr []byte) (answer, error) {
	old := t.know.peers[theirs.Name]
	p := peerOf(theirs, schema.PeerPending, t.OneWay, old, old.State == schema.PeerPending)
	var ans answer
	if !t.OneWay {
		req, err := parseRequest(csr, theirs.Name)
		if err != nil {
			return answer{}, refuse("", "%v", err)
		}
		chain, err := t.Settings.certify(req, t.know.facts.Root)
		if err != nil {
			return answer{}, err
		}
		if err := issued(&p, chain[0]); err != nil {
			return answer{}, err
		}
		ans.Chain = chain.DER()
	}
	op, err := put(schema.Peers(), theirs.Name, p)
	if err != nil {
		return answer{}, err
	}
	same := clientv3.Compare(clientv3.ModRevision(schema.PeersPrefix), "<", t.know.revision+1).WithPrefix()
	return ans, commit(ctx, t.Client, "store peer "+theirs.Name, []clientv3.Cmp{same}, op)
}
