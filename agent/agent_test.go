// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/internal/netns"
)

// addService writes a definition in a process inside the node's namespace, where
// the store is.
func (n *testNode) addService(definition string) {
	n.t.Helper()
	cmd := n.ns.Command(n.t.Context(), n.exe)
	cmd.Env = append(os.Environ(), childService+"="+definition, childStore+"="+n.etcd.Endpoint())
	if out, err := cmd.CombinedOutput(); err != nil {
		n.t.Fatalf("add service: %v: %s", err, out)
	}
}

func (n *testNode) reach(from *netns.NS, address, want string) {
	n.t.Helper()
	n.eventually("call "+address, func() error {
		got, err := call(from, address)
		if err == nil && got != want {
			err = fmt.Errorf("got %q, want %q", got, want)
		}
		return err
	})
}

// webService adds a client, and a service at 10.96.0.9:8080 of one endpoint, which the client reaches.
func (n *testNode) webService() (client *netns.NS, web *api.Endpoint) {
	n.t.Helper()
	client, _ = n.pod("client", "app=client")
	_, web = n.pod("web", "app=web")
	n.addService("name: web\nports: [{port: 8080, targetPort: http}]\nselector: {app: web}\nvips: [10.96.0.9]\n")
	n.reach(client, "10.96.0.9:8080", "web")
	return client, web
}

// restartStore starts the etcd again after it was killed.
func (n *testNode) restartStore() {
	n.t.Helper()
	n.must(n.ns.Do(func() error { return n.etcd.Restart(n.t.Context()) }))
}

func TestAgent_EndpointLife(t *testing.T) {
	n := newTestNode(t, "")
	n.start()
	web, e1 := n.pod("web", "app=web")
	client, e2 := n.pod("client", "app=client")
	if e1.State != "ready" || e2.State != "ready" || e1.Identity == e2.Identity || e1.Identity>>16 != 1 {
		t.Fatalf("got %v and %v", e1, e2)
	}
	for _, a := range e1.Addresses {
		n.reach(client, net.JoinHostPort(a, "80"), "web")
	}
	for _, a := range e2.Addresses {
		n.reach(web, net.JoinHostPort(a, "80"), "client")
		n.reach(n.ns, net.JoinHostPort(a, "80"), "client")
	}

	// What others see of it.
	for _, table := range []string{"nodes", "ips", "identities", "endpoints", "ipcache", "local-endpoints", "published-endpoints", "published-nodes"} {
		n.eventually("table "+table, func() error {
			rows := n.rows(table, "")
			if len(rows) == 0 {
				return errors.New("is empty")
			}
			for k, r := range rows {
				if r.Outcome != nil && !r.Outcome.Done {
					return fmt.Errorf("%s is not done: %s", k, r.Outcome.Error)
				}
			}
			return nil
		})
	}
	if got := n.rows("ips", e1.Addresses[0]); len(got) != 1 || !strings.Contains(string(got["a/"+e1.Addresses[0]].GetValue()), `"name":"web"`) {
		t.Errorf("ips by address: %v", got)
	}

	// A killed agent takes nothing with it, and a new one finds everything.
	n.stop(syscall.SIGKILL)
	n.reach(client, net.JoinHostPort(e1.Addresses[0], "80"), "web")
	n.start()
	list, err := n.client.EndpointList(t.Context(), &api.EndpointListRequest{})
	n.must(err)
	if len(list.Endpoints) != 2 || list.Endpoints[0].Identity != e1.Identity || list.Endpoints[0].Id != e1.Id ||
		strings.Join(list.Endpoints[0].Addresses, " ") != strings.Join(e1.Addresses, " ") {
		t.Errorf("after the restart: %v, want %v and %v", list.Endpoints, e1, e2)
	}
	n.reach(client, net.JoinHostPort(e1.Addresses[0], "80"), "web")
	n.eventually("healthy", func() error { return n.unhealthy() })

	// What is deleted is gone everywhere, and its address goes to nobody at once.
	for _, name := range []string{"web", "client"} {
		reply, err := n.client.EndpointDelete(t.Context(), &api.EndpointDeleteRequest{Namespace: "default", Name: name})
		if err != nil || !reply.Found {
			t.Fatalf("delete %s: %v %v", name, reply, err)
		}
	}
	n.eventually("rows are gone", func() error {
		for _, table := range []string{"ips", "endpoints", "local-endpoints"} {
			if rows := n.rows(table, ""); len(rows) > 0 {
				return fmt.Errorf("%s has %v", table, rows)
			}
		}
		return nil
	})
	_, e3 := n.pod("next", "app=web")
	if e3.Addresses[0] == e1.Addresses[0] || e3.Identity != e1.Identity {
		t.Errorf("next endpoint: %v after %v", e3, e1)
	}
	n.stop(syscall.SIGTERM)
}

// unhealthy names the lines of the status that have failed.
func (n *testNode) unhealthy() error {
	s, err := n.client.Status(n.t.Context(), &api.StatusRequest{})
	if err != nil {
		return err
	}
	var bad []string
	for _, l := range s.Lines {
		if l.Health == api.Health_HEALTH_FAILED {
			bad = append(bad, l.Component+": "+l.Reason)
		}
	}
	if len(bad) > 0 {
		return errors.New(strings.Join(bad, "; "))
	}
	return nil
}

func TestAgent_Services(t *testing.T) {
	n := newTestNode(t, "")
	n.start()
	client, web := n.webService()
	if got := n.rows("services", "default/web"); !strings.Contains(string(got["default/web"].GetValue()), `"active":1`) { // of two families
		t.Errorf("services: %v", got)
	}
	n.stop(syscall.SIGKILL)
	n.reach(client, "10.96.0.9:8080", "web") // a new connection without an agent
	n.start()
	_, err := n.client.EndpointSet(t.Context(), &api.EndpointSetRequest{Id: web.Id, State: "not-ready"})
	n.must(err)
	n.eventually("service refuses", func() error {
		if who, err := call(client, "10.96.0.9:8080"); err == nil {
			return fmt.Errorf("%s answers", who)
		}
		return nil
	})
	_, err = n.client.EndpointSet(t.Context(), &api.EndpointSetRequest{Id: web.Id, State: "ready"})
	n.must(err)
	n.reach(client, "10.96.0.9:8080", "web")
	n.stop(syscall.SIGTERM)
}

func TestAgent_StoreAway(t *testing.T) {
	n := newTestNode(t, "")
	n.start()
	client, e1 := n.pod("client", "app=web")
	n.etcd.Kill()
	n.eventually("status says so", func() error {
		if n.unhealthy() == nil {
			return errors.New("all is well")
		}
		return nil
	})
	_, e2 := n.pod("second", "app=web")
	if e2.State != "ready" || e2.Identity != e1.Identity {
		t.Errorf("endpoint with a known identity: %v", e2)
	}
	n.reach(client, net.JoinHostPort(e2.Addresses[0], "80"), "second")
	_, e3 := n.pod("third", "app=new")
	if e3.State != "waiting-for-identity" {
		t.Errorf("endpoint with an unknown identity: %v", e3)
	}
	// A new agent finds them all, without a store.
	n.stop(syscall.SIGKILL)
	n.start()
	n.reach(client, net.JoinHostPort(e2.Addresses[0], "80"), "second")
	n.restartStore()
	n.eventually("healthy again", func() error { return n.unhealthy() })
	n.reach(client, net.JoinHostPort(e3.Addresses[0], "80"), "third")
	n.eventually("addresses are published", func() error {
		if rows := n.rows("ips", ""); len(rows) != 6 {
			return fmt.Errorf("%d ips", len(rows))
		}
		return nil
	})
	n.stop(syscall.SIGTERM)
}

func TestAgent_RefusesASecond(t *testing.T) {
	n := newTestNode(t, "")
	n.start()
	second := n.ns.Command(t.Context(), n.exe)
	second.Env = append(os.Environ(), childConfig+"="+n.config)
	out, err := second.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another agent is running") {
		t.Errorf("second agent: %v %s", err, out)
	}
	n.stop(syscall.SIGTERM)
}

func TestAgent_BadRequests(t *testing.T) {
	n := newTestNode(t, "")
	n.start()
	for _, tt := range []struct {
		name string
		call func() error
		code codes.Code
	}{
		{"unknown-table", func() error {
			s, err := n.client.TableGet(t.Context(), &api.TableGetRequest{Table: "nothing"})
			n.must(err)
			_, err = s.Recv()
			return err
		}, codes.NotFound},
		{"unknown-endpoint", func() error {
			_, err := n.client.EndpointSet(t.Context(), &api.EndpointSetRequest{Id: 9, State: "ready"})
			return err
		}, codes.NotFound},
		{"no-such-namespace", func() error {
			_, err := n.client.EndpointAdd(t.Context(), &api.EndpointAddRequest{Namespace: "d", Name: "x", Netns: "/run/netns/wag-none"})
			return err
		}, codes.Internal},
		{"foreign-address", func() error {
			_, err := n.client.EndpointAdd(t.Context(), &api.EndpointAddRequest{Namespace: "d", Name: "x", Netns: "/x", Addresses: []string{"10.2.0.1"}})
			return err
		}, codes.FailedPrecondition},
		{"bad-label", func() error {
			_, err := n.client.EndpointAdd(t.Context(), &api.EndpointAddRequest{Namespace: "d", Name: "x", Netns: "/x", Labels: []string{"a=b;c"}})
			return err
		}, codes.InvalidArgument},
		{"unknown-event-type", func() error {
			s, err := n.client.Monitor(t.Context(), &api.MonitorRequest{Types: []string{"x"}})
			n.must(err)
			_, err = s.Recv()
			return err
		}, codes.InvalidArgument},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.call(); status.Code(err) != tt.code {
				t.Errorf("got %v, want %v", err, tt.code)
			}
		})
	}
	n.stop(syscall.SIGTERM)
}

func TestAgent_Monitor(t *testing.T) {
	n := newTestNode(t, "")
	n.start()
	client, _ := n.pod("client", "app=client")
	_, web := n.pod("web", "app=web")
	// The store tells who has an address and what its number means; before, an event has neither name.
	n.eventually("the store's word on both", func() error {
		for table, want := range map[string]string{"ips": web.Addresses[0], "identities": strconv.Itoa(int(web.Identity))} {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(n.rows(table, ""))), func(key string) bool { return strings.Contains(key, want) }) {
				return fmt.Errorf("%s has no %s", table, want)
			}
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := n.client.Monitor(ctx, &api.MonitorRequest{Types: []string{"new"}, Address: web.Addresses[0]})
	n.must(err)
	got := make(chan *api.FlowEvent, 1)
	go func() {
		defer close(got)
		if ev, err := stream.Recv(); err == nil {
			got <- ev
		}
	}()
	var ev *api.FlowEvent
	n.eventually("an event", func() error {
		if _, err := call(client, net.JoinHostPort(web.Addresses[0], "80")); err != nil {
			return err
		}
		select {
		case ev = <-got:
			return nil
		default:
			return errors.New("none yet")
		}
	})
	cancel()
	<-got
	if ev.Source.Name != "default/client" || ev.Destination.Name != "default/web" || ev.Destination.Port != 80 || ev.Protocol != "TCP" ||
		ev.Destination.Identity != web.Identity || len(ev.Destination.Labels) == 0 {
		t.Errorf("got %v", ev)
	}
	for _, v := range MapViews(n.dir+"/bpf", "a1") {
		entries := 0
		n.check(v.Get(t.Context(), 0, func(*api.MapEntry) error { entries++; return nil }))
		if entries == 0 && v.Name != "lb" && v.Name != "nodes" {
			t.Errorf("map %s is empty", v.Name)
		}
	}
	n.stop(syscall.SIGTERM)
}

func TestAgent_Metrics(t *testing.T) {
	n := newTestNode(t, "metrics: 127.0.0.1:9962\n")
	n.start()
	n.pod("web", "app=web")
	var text string
	n.must(n.ns.Do(func() error {
		c, err := net.Dial("tcp", "127.0.0.1:9962")
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := fmt.Fprint(c, "GET /metrics HTTP/1.0\r\n\r\n"); err != nil {
			return err
		}
		data, err := io.ReadAll(c)
		text = string(data)
		return err
	}))
	for _, want := range []string{
		"200 OK", `weft_agent_table_rows{source="local",table="local-endpoints"} 1`, `weft_agent_component_healthy{component="etcd"} 1`,
		"weft_datapath_", "weft_clustermesh_", "go_goroutines",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	n.stop(syscall.SIGTERM)
}

func TestAgent_NameClashAndLostState(t *testing.T) {
	n := newTestNode(t, "")
	n.start()
	taken := n.namespace("taken")
	n.must(netns.Veth(taken, "eth0", n.namespace("peer"), "x", 1500))
	_, err := n.client.EndpointAdd(t.Context(), &api.EndpointAddRequest{Namespace: "default", Name: "taken", Netns: taken.Path()})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "eth0") {
		t.Errorf("got %v, want FailedPrecondition that names eth0", err)
	}
	list, err := n.client.EndpointList(t.Context(), &api.EndpointListRequest{})
	n.must(err)
	if len(list.Endpoints) != 0 {
		t.Errorf("left behind: %v", list.Endpoints)
	}

	// Somebody removes the state directory: what works goes on, and status says so.
	client, _ := n.pod("client", "app=client")
	_, web := n.pod("web", "app=web")
	n.stop(syscall.SIGKILL)
	n.must(os.RemoveAll(filepath.Join(n.dir, "state")))
	for range 2 { // the second start finds the directory that the first made
		n.start()
		if err := n.unhealthy(); err == nil || !strings.Contains(err.Error(), "is not there, but the kernel has endpoint") {
			t.Errorf("status: %v", err)
		}
		n.reach(client, net.JoinHostPort(web.Addresses[0], "80"), "web")
		n.stop(syscall.SIGKILL)
	}
	n.start()
	_, other := n.pod("other", "app=web")
	if other.Addresses[0] == web.Addresses[0] {
		t.Errorf("address %v is given to a second endpoint", other.Addresses[0])
	}
	n.reach(client, net.JoinHostPort(web.Addresses[0], "80"), "web")
	n.stop(syscall.SIGTERM)
}
