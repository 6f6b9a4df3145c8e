// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

// halfJoined is how long a peer may be pending before it is shown as one that came only half-way.
const halfJoined = 10 * time.Minute

// maxIssued is how many certificates a peer may have at a time.
const maxIssued = 64

// Peers reads the rows of all peers. One that cannot be read is left out.
func Peers(ctx context.Context, c *kvstore.Client) (map[string]schema.Peer, error) {
	return list(ctx, c, schema.Peers())
}

// PeerState tells in a word how far a peer has come.
func PeerState(p schema.Peer) string {
	if p.State == schema.PeerPending && time.Since(p.Since) > halfJoined {
		return "half-joined"
	}
	return string(p.State)
}

// Approve lets a peer have its certificate that waits for it.
func Approve(ctx context.Context, c *kvstore.Client, name string) (schema.Peer, error) {
	var other schema.PeerState
	p, err := changePeer(ctx, c, name, func(p *schema.Peer) bool {
		if other = p.State; other == schema.PeerWaiting {
			p.State, p.Since = schema.PeerPending, time.Now()
			return true
		}
		return false
	})
	if err == nil && other != schema.PeerWaiting {
		return p, refuse("weft mesh peers", "cluster %s does not wait for an approval: it is %s", name, other)
	}
	return p, err
}

// ban makes a peer one that left: its name and all its certificates are refused.
func ban(ctx context.Context, c *kvstore.Client, name string) (schema.Peer, error) {
	return changePeer(ctx, c, name, func(p *schema.Peer) bool {
		if p.State == schema.PeerLeft {
			return false
		}
		p.State, p.Since = schema.PeerLeft, time.Now()
		p.Issued = slices.Clone(p.Issued)
		for i := range p.Issued {
			p.Issued[i].Revoked = true
		}
		return true
	})
}

// saw makes a pending peer a joined one, and tells whether it was pending.
func saw(ctx context.Context, c *kvstore.Client, name string) (news bool, err error) {
	_, err = changePeer(ctx, c, name, func(p *schema.Peer) bool {
		if news = p.State == schema.PeerPending; news {
			p.State, p.Since = schema.PeerJoined, time.Now()
		}
		return news
	})
	return news, err
}

// peerOf is the row of a cluster that was admitted, with what an earlier row of it must not lose: the
// certificates that it got. All of those are refused from now on, because the cluster says that it
// begins anew, unless it is the same that tries again.
func peerOf(f Facts, state schema.PeerState, oneWay bool, old schema.Peer, again bool) schema.Peer {
	p := schema.Peer{
		State: state, Since: time.Now(), ID: f.ID, MaxClusters: f.MaxClusters, PodCIDRs: f.PodCIDRs,
		Endpoints: f.Endpoints, Root: string(f.Root.Raw), OneWay: oneWay, Issued: slices.Clone(old.Issued), Extra: old.Extra,
	}
	if !again {
		for i := range p.Issued {
			p.Issued[i].Revoked = true
		}
	}
	return p
}

// issued adds a certificate to those that a peer got. Those that have expired go; the others are not
// forgotten, for they are to be refused when the peer leaves.
func issued(p *schema.Peer, cert *x509.Certificate) error {
	now := time.Now()
	p.Issued = slices.DeleteFunc(slices.Clone(p.Issued), func(i schema.Issued) bool { return now.After(i.Expires) })
	if len(p.Issued) >= maxIssued {
		return refuse("", "it has %d certificates that are good already", len(p.Issued))
	}
	p.Issued = append(p.Issued, schema.Issued{Serial: serialOf(cert), Expires: cert.NotAfter})
	return nil
}

// serialOf is a certificate's number as rows have it.
func serialOf(cert *x509.Certificate) string { return fmt.Sprintf("%x", cert.SerialNumber) }

// PeerDetails are the six words of a peering, the SHA-256 of the peer's root, and until when our
// certificate for it is good. What this machine has no files for is empty.
func (s Settings) PeerDetails(name string, p schema.Peer) (code, root string, ours time.Time) {
	theirs, err := x509.ParseCertificate([]byte(p.Root))
	if err != nil {
		return "", "", ours
	}
	root = trust.FingerprintOf(theirs).String()
	if _, own, err := s.shown(); err == nil {
		code = Code(own.Raw, theirs.Raw)
	}
	if s.MeshDir != "" {
		if chain, err := trust.ReadCertificates(files{s.MeshDir, name}.cert()); err == nil {
			ours = chain[0].NotAfter
		}
	}
	return code, root, ours
}
