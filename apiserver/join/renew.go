// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package join

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/apiserver"
	"github.com/weft-net/weft/apiserver/trust"
	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/schema"
)

const (
	// renewEvery lies between two rounds: in each, every peer is asked for its roots, and for a new
	// certificate where ours has lived a third of its life.
	renewEvery = time.Hour
	// maxRoots is the most roots that a cluster may have at a time: two during a rotation, and room.
	maxRoots = 8
)

// Renew renews the certificate of a peer that has joined, and tells it the cluster's roots. Without a
// request it only tells the roots. It is an apiserver.Renewer.
func (s *Server) Renew(ctx context.Context, cert *x509.Certificate, r apiserver.Renewal) (apiserver.Renewed, error) {
	name, ok := strings.CutPrefix(cert.Subject.CommonName, kvstore.UserRemote+"-")
	if !ok {
		return apiserver.Renewed{}, &apiserver.RefusedRenewal{Reason: fmt.Sprintf("%q is no peer: a peer is called remote-CLUSTER", cert.Subject.CommonName)}
	}
	roots, err := trust.ReadCertificates(s.settings.CAFile)
	if err != nil {
		return apiserver.Renewed{}, err
	}
	out := apiserver.Renewed{Roots: trust.Chain(roots).DER()}
	if len(r.CSR) == 0 {
		return out, nil
	}
	req, err := parseRequest(r.CSR, name)
	if err != nil {
		return apiserver.Renewed{}, &apiserver.RefusedRenewal{Reason: err.Error()}
	}
	chain, err := s.settings.certify(req, roots...)
	if err != nil {
		return apiserver.Renewed{}, err
	}
	// It is noted before it is given away, so that there is none that could not be refused later.
	var refused error
	_, err = changePeer(ctx, s.client, name, func(p *schema.Peer) bool {
		refused = renewable(p, cert)
		if refused == nil {
			refused = issued(p, chain[0])
		}
		return refused == nil
	})
	switch {
	case errors.Is(err, ErrNoPeer):
		return apiserver.Renewed{}, &apiserver.RefusedRenewal{Reason: "cluster " + name + " did not join with a token: whoever made its certificate renews it"}
	case err != nil:
		return apiserver.Renewed{}, err
	case refused != nil:
		return apiserver.Renewed{}, &apiserver.RefusedRenewal{Reason: refused.Error()}
	}
	s.log.Info("certificate of a peer renewed", "cluster", name, "until", chain[0].NotAfter)
	out.Chain = chain.DER()
	return out, nil
}

// renewable says why a certificate is not renewed: it must be one that the peer got when it joined or
// later.
func renewable(p *schema.Peer, cert *x509.Certificate) error {
	if p.State != schema.PeerPending && p.State != schema.PeerJoined {
		return fmt.Errorf("the peer is %s", p.State)
	}
	serial := serialOf(cert)
	if !slices.ContainsFunc(p.Issued, func(i schema.Issued) bool { return i.Serial == serial && !i.Revoked }) {
		return fmt.Errorf("certificate %s is not one that the peer got by joining", serial)
	}
	return nil
}

// watchCertificates has ours renewed by peers.
func (s *Server) watchCertificates(ctx context.Context) error {
	if s.settings.MeshDir == "" {
		return nil
	}
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for row := range s.peers.All() {
			if row.Value.State != schema.PeerJoined {
				continue
			}
			if err := s.renewWith(ctx, row.Key, time.Now()); err != nil && ctx.Err() == nil {
				s.log.Warn("certificate not renewed by a peer", "cluster", row.Key, "error", err)
			}
		}
	}
}

// renewWith asks a peer for its roots and, if ours has lived a third of its life by now, for a new
// certificate. The key stays, so that only one file changes, by rename: no connection ever finds a
// pair that does not fit. Who reaches the peer reads its files at each handshake.
func (s *Server) renewWith(ctx context.Context, peer string, now time.Time) error {
	f := files{s.settings.MeshDir, peer}
	if there, err := f.exists(); err != nil || !there {
		return err
	}
	chain, err := trust.ReadCertificates(f.cert())
	if err != nil {
		return err
	}
	known, err := trust.ReadCertificates(f.ca())
	if err != nil {
		return err
	}
	key, err := trust.ReadKey(f.key())
	if err != nil {
		return err
	}
	user := kvstore.UserRemoteCluster(s.settings.Cluster)
	var ask apiserver.Renewal
	if now.Sub(chain[0].NotBefore) > chain[0].NotAfter.Sub(chain[0].NotBefore)/3 {
		if ask.CSR, err = trust.NewCSR(user, key); err != nil {
			return err
		}
	}
	got, err := askRenewal(ctx, f, ask)
	if status.Code(err) == codes.Unimplemented {
		s.log.Debug("a peer renews no certificates", "cluster", peer) // an etcd, or an older weft
		return nil
	}
	if err != nil {
		return err
	}
	roots, err := announced(got.Roots, known)
	if err != nil {
		return err
	}
	if !slices.EqualFunc(roots, known, (*x509.Certificate).Equal) {
		if err := trust.WriteCertificates(f.ca(), roots); err != nil {
			return err
		}
		s.log.Info("a peer has other roots", "cluster", peer, "roots", len(roots), "first", trust.FingerprintOf(roots[0]).String())
	}
	// The one that signs now comes first; the row has it, for the words that people compare.
	if _, err := changePeer(ctx, s.client, peer, func(p *schema.Peer) bool {
		other := p.Root != string(roots[0].Raw)
		p.Root = string(roots[0].Raw)
		return other
	}); err != nil {
		return err
	}
	if len(ask.CSR) == 0 {
		return nil
	}
	fresh, err := trust.ParseDER(got.Chain)
	if err != nil {
		return err
	}
	if err := trust.VerifyUser(fresh, roots, user, key.Public()); err != nil {
		return err
	}
	if err := trust.WriteCertificates(f.cert(), fresh); err != nil {
		return err
	}
	s.log.Info("certificate renewed by a peer", "cluster", peer, "until", fresh[0].NotAfter)
	return nil
}

// announced reads the roots that a peer says it has. The connection was verified by the known ones;
// all the same one of them must be there still: a rotation overlaps, and anything else is a mistake
// that would cut us off.
func announced(ders [][]byte, known []*x509.Certificate) ([]*x509.Certificate, error) {
	roots, err := trust.ParseDER(ders)
	if err != nil {
		return nil, fmt.Errorf("its roots: %w", err)
	}
	if len(roots) > maxRoots {
		return nil, fmt.Errorf("it announces %d roots, more than %d", len(roots), maxRoots)
	}
	overlap := false
	for _, r := range roots {
		if err := trust.CheckRoot(r); err != nil {
			return nil, fmt.Errorf("its roots: %w", err)
		}
		overlap = overlap || slices.ContainsFunc(known, r.Equal)
	}
	if !overlap {
		return nil, errors.New("none of the roots that it announces is one that it had: nothing was changed; join it again if this is meant")
	}
	return roots, nil
}

// askRenewal asks over a connection like those of a mirror.
func askRenewal(ctx context.Context, f files, r apiserver.Renewal) (apiserver.Renewed, error) {
	cfg, err := kvstore.ReadConfigFile(f.client())
	if err != nil {
		return apiserver.Renewed{}, err
	}
	cfg.DialTimeout, cfg.RequestTimeout = reachTime, reachTime
	c, err := kvstore.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return apiserver.Renewed{}, err
	}
	defer c.Close()
	var got apiserver.Renewed
	err = c.Do(ctx, "renew", func(ctx context.Context) (err error) {
		got, err = apiserver.AskRenewal(ctx, c.Etcd().ActiveConnection(), r)
		return err
	})
	return got, err
}
