// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"testing"
	"time"
)

func TestGolden_OfJoining(t *testing.T) {
	at := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	token := Token{
		Joiner: "west", JoinerID: 2, Created: at, Expires: at.Add(time.Hour), Approve: true,
		UsedBy: "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100", UsedAt: at.Add(5*time.Minute + 55*time.Second),
	}
	for i := range token.PublicKey {
		token.PublicKey[i] = byte(i%16) * 0x11
	}
	golden(t, Tokens(), "weft/v1/tokens/00112233445566778899aabbccddeeff", "tokens/token.json", token, token)

	peer := Peer{
		State: PeerJoined, Since: at.Add(6*time.Minute + 55*time.Second), ID: 2, MaxClusters: 255,
		PodCIDRs: prefixes("10.2.0.0/16", "fd00:2::/48"), Endpoints: []string{"https://west.mesh.example:32379"}, Root: "root",
		Issued: []Issued{
			{Serial: "0a1b", Expires: time.Date(2026, 4, 2, 15, 10, 0, 0, time.UTC), Revoked: true},
			{Serial: "0a1c", Expires: time.Date(2026, 7, 2, 15, 10, 0, 0, time.UTC)},
		},
	}
	golden(t, Peers(), "weft/v1/peers/west", "peers/west.json", peer, peer)
}

func TestDecode_Token(t *testing.T) {
	const f = "tokens/token.json"
	refuses(t, Tokens(), "00112233445566778899aabbccddeeff", bad{
		"short-key":   {with(t, f, `"publicKey":"00`, `"publicKey":"`), "public key"},
		"no-joiner":   {with(t, f, `"joiner":"west"`, `"joiner":""`), "joiner"},
		"no-expiry":   {with(t, f, `"expires":"2026-01-02T16:04:05Z",`, ``), "expires"},
		"bad-user":    {with(t, f, `"usedBy":"ff`, `"usedBy":"`), "user"},
		"year-beyond": {with(t, f, `2026-01-02T16:04:05Z`, `9999-12-31T23:59:59-01:00`), "year"},
	})
}

func TestDecode_Peer(t *testing.T) {
	const f = "peers/west.json"
	refuses(t, Peers(), "west", bad{
		"state":     {with(t, f, `"joined"`, `"engaged"`), `state "engaged"`},
		"id":        {with(t, f, `"id":2`, `"id":300`), "cluster id 300"},
		"host-bits": {with(t, f, `10.2.0.0/16`, `10.2.0.1/16`), "host bits"},
		"no-prefix": {with(t, f, `10.2.0.0/16`, `10.2.0.0`), "no prefix"},
		"serial":    {with(t, f, `"0a1b"`, `"0A1B"`), "serial"},
		"root":      {with(t, f, `"cm9vdA=="`, `"*"`), "not JSON"},
		"year":      {with(t, f, `2026-04-02T15:10:00Z`, `9999-12-31T23:59:59-01:00`), "year"},
	})
}
