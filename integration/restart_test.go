// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/integration/lab"
	"github.com/weft-net/weft/internal/netns"
)

const (
	blastRate     = 20_000 // datagrams a second
	blastSessions = 200    // TCP connections that stay open meanwhile
)

// mesh is a lab that a test drives by the binary, as a person would.
type mesh struct {
	t    *testing.T
	bin  string
	name string
	*lab.Lab
	clients map[string]*clientv3.Client // of stores, by cluster
}

func newMesh(t *testing.T, name string, up ...string) *mesh {
	t.Helper()
	netns.RequireRoot(t)
	m := &mesh{t: t, bin: build(t), name: name}
	t.Cleanup(func() {
		if t.Failed() {
			m.logs()
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := lab.Down(ctx, name, lab.DirOf(name)); err != nil {
			t.Error(err)
		}
	})
	// The clusters read each other's stores, so that what happens to a store happens to all, unless told
	// otherwise.
	m.lab(append([]string{"up", "--apiservers", "0"}, up...)...)
	l, err := lab.Open(lab.DirOf(name))
	if err != nil {
		t.Fatal(err)
	}
	m.Lab = l
	return m
}

// lab runs "weft lab ARGS" and returns what it printed.
func (m *mesh) lab(args ...string) string {
	m.t.Helper()
	cmd := exec.Command(m.bin, append([]string{"lab", args[0], "--name", m.name}, args[1:]...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		m.t.Fatalf("weft lab %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String()
}

// logs shows the ends of the logs of agents, operators and stores, without what is for the history.
func (m *mesh) logs() {
	for _, name := range []string{"agent.log", "operator.log", "etcd*.log"} {
		files, _ := filepath.Glob(filepath.Join(lab.DirOf(m.name), "*", name))
		for _, f := range files {
			b, err := os.ReadFile(f)
			b = bytes.Join(slices.DeleteFunc(bytes.SplitAfter(b, []byte("\n")), func(line []byte) bool {
				return bytes.Contains(line, []byte(`"level":"DEBUG"`))
			}), nil)
			if err == nil {
				m.t.Logf("--- %s\n%s", f, b[max(0, len(b)-900):])
			}
		}
	}
}

// dropped sums the packets between endpoints that the datapath of a node refused.
func (m *mesh) dropped(node string) uint64 {
	m.t.Helper()
	cmd := exec.Command(m.bin, "bpf", "metrics", "list", "-o", "json", "--socket", filepath.Join(lab.DirOf(m.name), node, "agent.sock"))
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("counters of %s: %v", node, err)
	}
	var list struct {
		Items []struct {
			Value struct {
				Reason  string `json:"reason"`
				Packets uint64 `json:"packets"`
			} `json:"value"`
		} `json:"items"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		m.t.Fatalf("counters of %s: %v in %s", node, err, out)
	}
	var sum uint64
	for _, i := range list.Items {
		// What a pod's own stack sends to everybody around it is refused at any time.
		if i.Value.Reason != "multicast" {
			sum += i.Value.Packets
		}
	}
	return sum
}

// sink counts the numbered datagrams that arrive at a socket.
type sink struct {
	conn *net.UDPConn
	got  atomic.Uint64
	done chan struct{}
}

func newSink(t *testing.T, namespace string, addr netip.Addr) *sink {
	t.Helper()
	s := &sink{done: make(chan struct{})}
	inNetns(t, namespace, func() (err error) {
		s.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 9999)))
		return err
	})
	raw, err := s.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	}), err); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.done)
		buf := make([]byte, 2048)
		for {
			n, err := s.conn.Read(buf)
			if err != nil {
				return
			}
			if n >= 8 {
				s.got.Add(1)
			}
		}
	}()
	return s
}

// overflowed is how many datagrams the kernel had for the socket and no room.
func (s *sink) overflowed(t *testing.T) uint64 {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var drops uint64
	if err := raw.Control(func(fd uintptr) {
		var info [9]uint32
		b := make([]byte, 36)
		if n, e := getsockopt(int(fd), unix.SOL_SOCKET, unix.SO_MEMINFO, b); e == nil && n >= 36 {
			for i := range info {
				info[i] = binary.NativeEndian.Uint32(b[4*i:])
			}
			drops = uint64(info[8]) // SK_MEMINFO_DROPS
		} else {
			err = e
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return drops
}

func inNetns(t *testing.T, name string, f func() error) {
	t.Helper()
	ns, err := netns.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := ns.Do(f); err != nil {
		t.Fatal(err)
	}
}

// blast sends numbered datagrams at the rate until ctx ends and returns how many left.
func blast(ctx context.Context, conn *net.UDPConn) (uint64, error) {
	const perTick = blastRate / 1000
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	msg := make([]byte, 64)
	var sent uint64
	begin := time.Now()
	for {
		select {
		case <-ctx.Done():
			return sent, nil
		case <-tick.C:
		}
		// Ticks that a busy machine swallowed are made up for, in small bursts.
		due := uint64(time.Since(begin).Milliseconds()) * perTick
		for n := 0; sent < due && n < 4*perTick; n++ {
			binary.BigEndian.PutUint64(msg, sent)
			if _, err := conn.Write(msg); err != nil {
				return sent, err
			}
			sent++
		}
	}
}

// TestRestart_LosesNothing kills the agents of both ends of a busy path, at both ends, while
// packets and sessions cross clusters. Guarantee: invisible restart.
func TestRestart_LosesNothing(t *testing.T) {
	for _, mode := range []string{"vxlan", "native"} {
		t.Run(mode, func(t *testing.T) { restartUnderLoad(t, mode) })
	}
}

// TestSoak_Restarts does the same again and again for as long as WEFT_SOAK says.
func TestSoak_Restarts(t *testing.T) {
	text := os.Getenv("WEFT_SOAK")
	if text == "" {
		t.Skip("WEFT_SOAK does not say how long")
	}
	long, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("WEFT_SOAK: %v", err)
	}
	for begin, n := time.Now(), 1; time.Since(begin) < long && !t.Failed(); n++ {
		mode := []string{"vxlan", "native"}[n%2]
		t.Run(fmt.Sprintf("%s-%d", mode, n), func(t *testing.T) { restartUnderLoad(t, mode) })
	}
}

func restartUnderLoad(t *testing.T, mode string) {
	m := newMesh(t, labName("r"+mode), "--mode", mode, "--nodes", "1", "--pods", "2")
	east, west := m.Clusters[0].Nodes[0], m.Clusters[1].Nodes[0]
	from, to := east.Pods[0], west.Pods[1]
	s := newSink(t, to.Workload.Netns, to.Addresses[0])
	defer func() { s.conn.Close(); <-s.done }()
	var conn *net.UDPConn
	inNetns(t, from.Workload.Netns, func() (err error) {
		conn, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Addresses[0], 9999)))
		return err
	})
	defer conn.Close()
	before := map[string]uint64{east.Name: m.dropped(east.Name), west.Name: m.dropped(west.Name)}

	sessions := m.load(from.Name, "--to", netip.AddrPortFrom(to.Addresses[0], 7).String(),
		"--rate", "0", "--sessions", "200", "--duration", "0s", "--timeout", "20s")
	fresh := m.load(from.Name, "--to", netip.AddrPortFrom(to.Addresses[0], 13).String(),
		"--rate", "50", "--duration", "0s", "--timeout", "20s")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type result struct {
		sent uint64
		err  error
	}
	sent := make(chan result, 1)
	go func() { n, err := blast(ctx, conn); sent <- result{n, err} }()
	waitFor(t, "the first packets", func() bool { return s.got.Load() > blastRate/10 })

	for _, node := range []string{east.Name, west.Name} {
		m.lab("kill", "agent/"+node)
		// The traffic goes on while nobody is there.
		at := s.got.Load()
		waitFor(t, "packets without the agent", func() bool { return s.got.Load() > at+blastRate/2 })
		m.lab("start", "agent/"+node)
		at = s.got.Load()
		waitFor(t, "packets with the agent again", func() bool { return s.got.Load() > at+blastRate/2 })
	}
	cancel()
	r := <-sent
	if r.err != nil {
		t.Fatal(r.err)
	}
	arrived := func() uint64 { return s.got.Load() + s.overflowed(t) }
	waitFor(t, "the last packets", func() bool { return arrived() >= r.sent })
	if got := arrived(); got != r.sent {
		t.Errorf("%d packets arrived of %d", got, r.sent)
	}
	t.Logf("%d packets sent, %d read, %d met a full socket", r.sent, s.got.Load(), s.overflowed(t))
	if sum := sessions.stop(); sum.Resets != 0 || sum.Messages < blastSessions {
		t.Errorf("sessions: %+v, want none reset and a message of each", sum)
	}
	if sum := fresh.stop(); sum.Failed != 0 || sum.Connects == 0 {
		t.Errorf("new connections: %+v, want none failed", sum)
	}
	for _, node := range []string{east.Name, west.Name} {
		if now := m.dropped(node); now != before[node] {
			t.Errorf("%s dropped %d packets", node, now-before[node])
		}
	}
	m.noRaces()
}

// waitFor waits for a condition of the lab.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	waitWithin(t, patience, what, done)
}

// waitWithin is waitFor where more patience is needed.
func waitWithin(t *testing.T, patience time.Duration, what string, done func() bool) {
	t.Helper()
	end := time.After(patience)
	for !done() {
		select {
		case <-end:
			t.Fatalf("not within %v: %s", patience, what)
		case <-time.After(10 * time.Millisecond): // the condition is outside of this process
		}
	}
}
