// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/weft-net/weft/integration/lab"
	"github.com/weft-net/weft/kvstore"
)

// childStore makes this test binary a client of the store whose client file it names. A process of
// its own is needed because a lab's stores are reached from the lab's namespaces only.
const childStore = "WEFT_TEST_STORE"

// cmdStore works on a store as its administrator, to do what others do wrong:
//
//	store CLUSTER put KEY VALUE
//	store CLUSTER huge KEY BYTES	a JSON string of that size
//	store CLUSTER many KEY VALUE	a hundred keys: %d in both is a number from 100 on
//	store CLUSTER none KEY		deletes them again
//	store CLUSTER get KEY
//	store CLUSTER delete KEY
//	store CLUSTER revoke		every lease
//	store CLUSTER compact		all but the newest revision
//
// In a VALUE \xNN stands for a byte.
func cmdStore(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: store CLUSTER VERB ...")
	}
	self, err := os.Executable()
	ts.Check(err)
	file := filepath.Join(lab.DirOf(ts.Getenv("LAB")), args[0], "etcd.yaml")
	argv := append([]string{"exec", "etcd/" + args[0], "--", "env", childStore + "=" + file, self}, args[1:]...)
	if err := ts.Exec("weft", labArgs(ts, argv)...); (err != nil) != neg {
		ts.Fatalf("store %s: %v", strings.Join(args, " "), err)
	}
}

// runStore is one call of cmdStore in the child.
func runStore(file string, args []string) error {
	cfg, err := kvstore.ReadConfigFile(file)
	if err != nil {
		return err
	}
	c, err := kvstore.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	args = append(args, "", "", "")
	verb, key, value := args[0], args[1], args[2]
	switch verb {
	case "put":
		return put(ctx, c, key, unescape(value))
	case "huge":
		n := 0
		if _, err := fmt.Sscan(value, &n); err != nil {
			return err
		}
		return put(ctx, c, key, `"`+strings.Repeat("x", n-2)+`"`)
	case "many", "none":
		for n := range 100 {
			number := strings.NewReplacer("%d", strconv.Itoa(100+n))
			k := number.Replace(key)
			if verb == "none" {
				_, err = c.Delete(ctx, k)
			} else {
				err = put(ctx, c, k, number.Replace(value))
			}
			if err != nil {
				return err
			}
		}
		return nil
	case "get":
		kv, found, err := c.Get(ctx, key)
		if err == nil && !found {
			err = fmt.Errorf("%s is not there", key)
		}
		fmt.Printf("%s\n", kv.Value)
		return err
	case "delete":
		_, err := c.Delete(ctx, key)
		return err
	case "revoke":
		leases, err := c.Etcd().Leases(ctx)
		if err != nil {
			return err
		}
		for _, l := range leases.Leases {
			_, err := c.Etcd().Revoke(ctx, l.ID)
			if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) { // it ran out meanwhile
				return err
			}
		}
		return nil
	case "compact":
		now, err := c.Etcd().Get(ctx, "x")
		if err != nil {
			return err
		}
		_, err = c.Etcd().Compact(ctx, now.Header.Revision)
		return err
	}
	return fmt.Errorf("verb %q: see cmdStore", verb)
}

func put(ctx context.Context, c *kvstore.Client, key, value string) error {
	_, err := c.Put(ctx, key, []byte(value), 0)
	return err
}

// unescape replaces \xNN.
func unescape(s string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `\x`)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		n := 0
		if _, err := fmt.Sscanf(after, "%02x", &n); err == nil {
			b.WriteByte(byte(n))
			after = after[2:]
		}
		s = after
	}
}
