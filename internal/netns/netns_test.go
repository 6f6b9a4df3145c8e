// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package netns_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/netns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newNS makes a namespace that is gone after the test, and checks that it is.
func newNS(t *testing.T, suffix string) *netns.NS {
	t.Helper()
	name := fmt.Sprintf("wt%d-%s", os.Getpid(), suffix)
	ns, err := netns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Delete(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(filepath.Join(netns.Dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after Delete the name %s is still there: %v", name, err)
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(mounts, []byte("/"+name+" ")) {
			t.Errorf("after Delete the mount of %s is still there", name)
		}
	})
	return ns
}

// current names the namespace of the calling thread.
func current(t *testing.T) string {
	t.Helper()
	s, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNew_IsPrepared(t *testing.T) {
	netns.RequireRoot(t)
	ns := newNS(t, "a")
	if _, err := netns.New(ns.Name()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second New with the name: got %v, want fs.ErrExist", err)
	}
	if err := ns.SetForwarding(true); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"net/ipv4/ip_forward":                  "1",
		"net/ipv6/conf/all/forwarding":         "1",
		"net/ipv4/conf/all/send_redirects":     "0",
		"net/ipv4/conf/default/send_redirects": "0",
		"net/ipv6/conf/default/accept_dad":     "0",
		"net/ipv4/conf/default/rp_filter":      "0",
	}
	got := map[string]string{}
	for name := range want {
		v, err := ns.Sysctl(name)
		if err != nil {
			t.Fatal(err)
		}
		got[name] = v
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("sysctls (-want +got):\n%s", d)
	}
	lo, err := ns.Link("lo")
	if err != nil {
		t.Fatal(err)
	}
	if lo.Flags&net.FlagUp == 0 {
		t.Error("lo is down")
	}
}

func TestNew_BadName(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "/a"} {
		if ns, err := netns.New(name); err == nil {
			ns.Delete()
			t.Errorf("New(%q) succeeded", name)
		}
	}
}

func TestSetSysctl_OutsideNet(t *testing.T) {
	netns.RequireRoot(t)
	ns := newNS(t, "a")
	for _, name := range []string{"kernel/hostname", "net/../kernel/hostname", "../etc/x"} {
		if err := ns.SetSysctl(name, "x"); err == nil {
			t.Errorf("SetSysctl(%q) succeeded", name)
		}
	}
}

func TestDo_EntersAndReturns(t *testing.T) {
	netns.RequireRoot(t)
	ns := newNS(t, "a")
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home := current(t)

	var inside string
	wantErr := errors.New("mine")
	if err := ns.Do(func() error { inside = current(t); return wantErr }); err != wantErr {
		t.Errorf("Do returned %v, want what the function returned", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(ns.Fd(), &st); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("net:[%d]", st.Ino); inside != want {
		t.Errorf("inside Do: got %s, want %s", inside, want)
	}
	if now := current(t); now != home {
		t.Errorf("after Do: got %s, want %s", now, home)
	}
	// No thread of the process may have stayed behind.
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		got, err := os.Readlink(task)
		if err == nil && got != home {
			t.Errorf("%s is in %s", task, got)
		}
	}
}

func TestDo_FunctionDoesNotReturn(t *testing.T) {
	netns.RequireRoot(t)
	ns := newNS(t, "a")
	if err := ns.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("Do returned nil although its function left")
	}
	defer func() {
		if got := recover(); got != "boom" {
			t.Errorf("recovered %v, want boom", got)
		}
	}()
	ns.Do(func() error { panic("boom") })
	t.Error("Do swallowed a panic")
}

func TestCommand_HasRealPid(t *testing.T) {
	netns.RequireRoot(t)
	ns := newNS(t, "a")
	cmd := ns.Command(t.Context(), "cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(ns.Fd(), &st); err != nil {
		t.Fatal(err)
	}
	got, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("net:[%d]", st.Ino); got != want {
		t.Errorf("namespace of the process: got %s, want %s", got, want)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	out, err := ns.Command(t.Context(), "readlink", "/proc/self/ns/net").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.TrimSpace(string(out)), fmt.Sprintf("net:[%d]", st.Ino); got != want {
		t.Errorf("namespace of the process: got %s, want %s", got, want)
	}
}

func TestCommand_EndsWithContext(t *testing.T) {
	netns.RequireRoot(t)
	ns := newNS(t, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cmd := ns.Command(ctx, "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("the process ended well, want killed")
	}
}

func TestVethPair_AsAsked(t *testing.T) {
	netns.RequireRoot(t)
	a, b := newNS(t, "a"), newNS(t, "b")
	macA, macB := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	const index = 0x10000 + 7
	err := netns.VethPair(netns.End{NS: a, Name: "x", MAC: macA, Index: index}, netns.End{NS: b, Name: "y", MAC: macB}, 1400)
	if err != nil {
		t.Fatal(err)
	}
	type link struct {
		Index, MTU int
		MAC        string
		Up         bool
	}
	get := func(ns *netns.NS, name string) link {
		l, err := ns.Link(name)
		if err != nil {
			t.Fatal(err)
		}
		return link{l.Index, l.MTU, l.HardwareAddr.String(), l.OperState == netlink.OperUp}
	}
	x, y := get(a, "x"), get(b, "y")
	if d := cmp.Diff(link{index, 1400, macA.String(), true}, x); d != "" {
		t.Errorf("first end (-want +got):\n%s", d)
	}
	if d := cmp.Diff(link{y.Index, 1400, macB.String(), true}, y); d != "" {
		t.Errorf("second end (-want +got):\n%s", d)
	}
	err = netns.VethPair(netns.End{NS: a, Name: "p"}, netns.End{NS: b, Name: "q", Index: 5}, 0)
	if err == nil {
		t.Error("an index for the second end was accepted")
	}
	// The same name again is an error, and leaves the pair alone.
	if err := netns.Veth(a, "x", b, "z", 0); err == nil {
		t.Error("a second x was accepted")
	}
	if _, err := b.Link("z"); err == nil {
		t.Error("the refused pair left its second end")
	}
}

func TestDelete_RemovesPeersAtOnce(t *testing.T) {
	netns.RequireRoot(t)
	a, b := newNS(t, "a"), newNS(t, "b")
	if err := netns.Veth(a, "x", b, "y", 0); err != nil {
		t.Fatal(err)
	}
	// A process in the namespace keeps it alive, but not its devices; and it is not killed.
	cmd := a.Command(t.Context(), "cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := a.Delete(); err != nil {
		t.Error(err)
	}
	if l, err := b.Link("y"); err == nil {
		t.Errorf("the peer is still there: %+v", l)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the process in the namespace: %v", err)
	}
	if err := a.Delete(); err != nil {
		t.Errorf("a second Delete: %v", err)
	}
	if err := a.Do(func() error { return nil }); err == nil {
		t.Error("Do works on a deleted namespace")
	}
}

func TestRoutes_TrafficFlows(t *testing.T) {
	netns.RequireRoot(t)
	for _, tt := range []struct {
		name          string
		left, right   netip.Prefix
		leftG, rightG netip.Prefix
	}{
		{
			"ipv4",
			netip.MustParsePrefix("10.1.0.2/24"), netip.MustParsePrefix("10.2.0.2/24"),
			netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("10.2.0.1/24"),
		},
		{
			"ipv6",
			netip.MustParsePrefix("fd01::2/64"), netip.MustParsePrefix("fd02::2/64"),
			netip.MustParsePrefix("fd01::1/64"), netip.MustParsePrefix("fd02::1/64"),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			left, router, right := newNS(t, "l"), newNS(t, "r"), newNS(t, "x")
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(router.SetForwarding(true))
			must(netns.Veth(left, "eth0", router, "left", 0))
			must(netns.Veth(right, "eth0", router, "port", 0))
			// The right side hangs on a bridge, so that bridges are tried too.
			must(router.AddBridge("br0", "port"))
			must(left.AddAddr("eth0", tt.left))
			must(right.AddAddr("eth0", tt.right))
			must(router.AddAddr("left", tt.leftG))
			must(router.AddAddr("br0", tt.rightG))
			must(left.AddRoute(netns.Route{To: tt.right.Masked(), Via: tt.leftG.Addr(), MTU: 1400}))
			must(right.AddRoute(netns.Route{To: tt.left.Masked(), Via: tt.rightG.Addr()}))

			var l net.Listener
			must(right.Do(func() (err error) {
				l, err = net.Listen("tcp", netip.AddrPortFrom(tt.right.Addr(), 7).String())
				return err
			}))
			defer l.Close()
			go func() {
				if c, err := l.Accept(); err == nil {
					c.Write([]byte(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().String()))
					c.Close()
				}
			}()
			var got [64]byte
			var n int
			must(left.Do(func() error {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					return err
				}
				defer c.Close()
				n, err = c.Read(got[:])
				return err
			}))
			if d := cmp.Diff(tt.left.Addr().String(), string(got[:n])); d != "" {
				t.Errorf("source address (-want +got):\n%s", d)
			}
		})
	}
}

func TestOpen_Unknown(t *testing.T) {
	if _, err := netns.Open("weft-no-such-namespace"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}
