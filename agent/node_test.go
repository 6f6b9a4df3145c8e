// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/datapath"
	"github.com/weft-net/weft/internal/netns"
	"github.com/weft-net/weft/kvstore/embedded"
)

// patience bounds every wait of these tests: nothing takes that long unless it is broken.
const patience = 2 * time.Minute

// testNode is a node in a network namespace: an underlay, an etcd, and an agent
// as a process.
type testNode struct {
	t      *testing.T
	ns     *netns.NS
	dir    string
	exe    string // these tests, which can also be an agent
	config string
	socket string
	etcd   *embedded.Server
	cmd    *netns.Cmd
	client api.AgentClient
	conn   *grpc.ClientConn
}

func newTestNode(t *testing.T, settings string) *testNode {
	t.Helper()
	netns.RequireRoot(t)
	n := &testNode{t: t, dir: t.TempDir()}
	bpffs := filepath.Join(n.dir, "bpf")
	n.must(os.Mkdir(bpffs, 0o700))
	n.must(unix.Mount("bpf", bpffs, "bpf", 0, ""))
	t.Cleanup(func() { n.check(unix.Unmount(bpffs, unix.MNT_DETACH)) })
	n.ns = n.namespace("node")
	n.must(netns.Veth(n.ns, "under", n.namespace("wire"), "over", 1500))
	n.must(n.ns.AddAddr("under", netip.MustParsePrefix("172.16.0.1/24")))
	n.must(n.ns.SetForwarding(true))
	t.Cleanup(func() {
		n.check(datapath.Cleanup(context.Background(), datapath.CleanupConfig{BPFRoot: bpffs, NodeName: "a1", NetNS: n.ns.Path()}))
	})
	n.startEtcd()

	n.socket, n.config = filepath.Join(n.dir, "agent.sock"), filepath.Join(n.dir, "agent.yaml")
	n.write("etcd.yaml", "endpoints: ["+n.etcd.Endpoint()+"]\n")
	n.write("agent.yaml", fmt.Sprintf(`
node: a1
cluster: a
cluster-id: 1
addresses: [172.16.0.1]
pod-cidrs: [10.1.0.0/28, 'fd00:1::/64']
service-cidrs: [10.96.0.0/24]
bpffs: %s
state-dir: %s
socket: %s
etcd: %s
map-flows: 4096
map-young-flows: 1024
map-ipcache: 4096
map-ipcache-prefixes: 1024
map-events: 65536
%s`, bpffs, filepath.Join(n.dir, "state"), n.socket, filepath.Join(n.dir, "etcd.yaml"), settings))
	var err error
	n.exe, err = os.Executable()
	n.must(err)
	n.client, n.conn, err = api.Dial(n.socket)
	n.must(err)
	t.Cleanup(func() { n.check(n.conn.Close()) })
	return n
}

func (n *testNode) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *testNode) check(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Error(err)
	}
}

func (n *testNode) write(name, text string) {
	n.t.Helper()
	n.must(os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o600))
}

// namespace makes one that is gone after the test.
func (n *testNode) namespace(name string) *netns.NS {
	n.t.Helper()
	ns, err := netns.New(fmt.Sprintf("wag-%d-%s", os.Getpid(), name))
	n.must(err)
	n.t.Cleanup(func() { n.check(ns.Delete()) })
	return ns
}

func (n *testNode) startEtcd() {
	n.t.Helper()
	n.must(n.ns.Do(func() (err error) {
		n.etcd, err = embedded.Start(n.t.Context(), embedded.Config{
			Dir: filepath.Join(n.dir, "etcd"), ClientURL: "http://127.0.0.1:2379", PeerURL: "http://127.0.0.1:2380", UnsafeNoFsync: true,
		})
		return err
	}))
	n.t.Cleanup(func() { n.etcd.Kill() })
}

// start runs an agent and waits until its datapath is ready.
func (n *testNode) start() {
	n.t.Helper()
	n.cmd = n.ns.Command(context.Background(), n.exe)
	n.cmd.Env = append(os.Environ(), childConfig+"="+n.config)
	n.cmd.Stderr = testWriter{n.t}
	n.must(n.cmd.Start())
	cmd := n.cmd
	n.t.Cleanup(func() {
		if n.cmd == cmd {
			n.stop(syscall.SIGKILL)
		}
	})
	n.eventually("agent answers", func() error {
		s, err := n.client.Status(n.t.Context(), &api.StatusRequest{})
		if err != nil {
			return err
		}
		for _, l := range s.Lines {
			if l.Component == "datapath" && l.Health != api.Health_HEALTH_OK {
				return fmt.Errorf("datapath: %s", l.Reason)
			}
		}
		return nil
	})
}

// stop ends the agent with a signal.
func (n *testNode) stop(sig syscall.Signal) {
	n.t.Helper()
	cmd := n.cmd
	n.cmd = nil
	n.must(cmd.Process.Signal(sig))
	err := cmd.Wait()
	if sig == syscall.SIGTERM && err != nil {
		n.t.Errorf("agent ended: %v", err)
	}
}

// eventually asks until there is no error, or patience is over.
func (n *testNode) eventually(what string, ask func() error) {
	n.t.Helper()
	end := time.After(patience)
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-end:
			n.t.Fatalf("%s: %v", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// rows reads a table as key to "value | source | done or error".
func (n *testNode) rows(table, key string) map[string]*api.Row {
	n.t.Helper()
	stream, err := n.client.TableGet(n.t.Context(), &api.TableGetRequest{Table: table, Key: key})
	n.must(err)
	rows := map[string]*api.Row{}
	for {
		item, err := stream.Recv()
		if err == io.EOF {
			return rows
		}
		n.must(err)
		if r := item.GetRow(); r != nil {
			rows[r.Key] = r
		}
	}
}

// pod adds an endpoint with a namespace of its own, in which a server says its name on port 80.
func (n *testNode) pod(name string, labels ...string) (*netns.NS, *api.Endpoint) {
	n.t.Helper()
	ns := n.namespace(name)
	e, err := n.client.EndpointAdd(n.t.Context(), &api.EndpointAddRequest{
		Namespace: "default", Name: name, Netns: ns.Path(), Labels: labels,
		NamedPorts: []*api.NamedPort{{Name: "http", Port: 80, Protocol: "TCP"}},
	})
	n.must(err)
	n.serve(ns, name)
	return ns, e
}

func (n *testNode) serve(ns *netns.NS, name string) {
	n.t.Helper()
	var listener net.Listener
	n.must(ns.Do(func() (err error) {
		listener, err = net.Listen("tcp", ":80")
		return err
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, name)
			c.Close()
		}
	}()
	n.t.Cleanup(func() {
		listener.Close()
		<-done
	})
}

// call connects from a namespace and returns who answered.
func call(ns *netns.NS, address string) (string, error) {
	var answer string
	err := ns.Do(func() error {
		c, err := net.DialTimeout("tcp", address, 2*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		answer, err = bufio.NewReader(c).ReadString('\n')
		return err
	})
	return strings.TrimSpace(answer), err
}

// testWriter writes log lines into the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}
