// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServe_OffBadAndOn(t *testing.T) {
	if err := Serve(t.Context(), "", NewRegistry()); err != nil {
		t.Errorf("switched off: %v", err)
	}
	// An address that is taken is an error that names what wanted it.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := taken.Addr().String()
	if err := Serve(t.Context(), address, NewRegistry()); err == nil || !strings.HasPrefix(err.Error(), "metrics: ") {
		t.Errorf("address in use: %v", err)
	}
	taken.Close()

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, address, NewRegistry()) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var body []byte
	for body == nil {
		res, err := client.Get("http://" + address + "/metrics")
		if err != nil {
			select {
			case err := <-done:
				t.Fatalf("ended: %v", err)
			default: // it does not listen yet
			}
			continue
		}
		if body, err = io.ReadAll(res.Body); err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	if !strings.Contains(string(body), "go_goroutines") {
		t.Errorf("no metric of the process in %q", body)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
