// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/weft-net/weft/integration/lab"
	"github.com/weft-net/weft/internal/netns"
	"github.com/weft-net/weft/internal/stats"
)

// Goals of C2: a change is in the map at most that many times later than a bare watch tells of it.
const (
	reachGoalP50 = 1.15
	reachGoalP99 = 1.5
)

// reachChanges is how many changes are made; p99 is then the third worst.
const reachChanges = 300

// reachTask is what the parent tells the process that makes the changes.
type reachTask struct {
	Etcd      string         `json:"etcd"` // client file of the store that is changed
	Cluster   string         `json:"cluster"`
	ClusterID uint32         `json:"clusterID"`
	BPFFS     string         `json:"bpffs"`
	Nodes     []string       `json:"nodes"` // of the other cluster, whose maps are read
	Frontend  netip.AddrPort `json:"frontend"`
	Backends  [2]netip.Addr  `json:"backends"` // that the service has in turn
	Changes   int            `json:"changes"`
}

// reachTimes are the answer, in nanoseconds from the start of each put.
type reachTimes struct {
	Watch []float64 `json:"watch"` // to the event of a bare watch
	Maps  []float64 `json:"maps"`  // to the map of the last node
}

// measureReach builds a mesh of two clusters and changes a global service in one of them, as its
// leader would, until the maps of all nodes of the other say so.
func measureReach(ctx context.Context, cfg Config) (_ []Line, err error) {
	weft, err := filepath.Abs(cfg.Weft)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(weft); err != nil {
		return nil, fmt.Errorf("build the binary first: %w", err)
	}
	o := lab.DefaultOptions()
	o.Name, o.Pods, o.Weft = "b"+strconv.Itoa(os.Getpid()), 1, weft
	o.Dir = lab.DirOf(o.Name)
	defer func() {
		// Also when ctx is the reason to stop.
		err = errors.Join(err, lab.Down(context.WithoutCancel(ctx), o.Name, o.Dir))
	}()
	l, err := lab.Up(ctx, o, nil)
	if err != nil {
		return nil, err
	}
	times, err := reach(ctx, l)
	if err != nil {
		return nil, err
	}
	return reachLines(times)
}

// reach runs the changing process inside the store's namespace: nothing else reaches it.
func reach(ctx context.Context, l *lab.Lab) (times reachTimes, err error) {
	here, there := l.Clusters[0], l.Clusters[1]
	pods := there.Nodes[0].PodCIDRs[0].Addr().As4()
	pods[3] = 200
	first := netip.AddrFrom4(pods)
	vip := here.Service.Addresses[0].As4()
	vip[3] = 99
	task := reachTask{
		Etcd: there.EtcdConfig, Cluster: there.Name, ClusterID: there.ID, BPFFS: l.BPFFS,
		Frontend: netip.AddrPortFrom(netip.AddrFrom4(vip), servicePort),
		Backends: [2]netip.Addr{first, first.Next()}, Changes: reachChanges,
	}
	for _, n := range here.Nodes {
		task.Nodes = append(task.Nodes, n.Name)
	}
	if err := addReachService(ctx, l, here, task.Frontend); err != nil {
		return times, err
	}
	ns, err := netns.Open(there.Etcd.Netns)
	if err != nil {
		return times, err
	}
	defer ns.Close()
	exe, err := os.Executable()
	if err != nil {
		return times, err
	}
	arg, err := json.Marshal(task)
	if err != nil {
		return times, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := ns.Command(ctx, exe, workerArg, "reach", string(arg))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return times, fmt.Errorf("change services of %s: %w", there.Name, err)
	}
	return times, json.Unmarshal(out, &times)
}

// addReachService defines the service in the cluster that watches. It has no backends there.
func addReachService(ctx context.Context, l *lab.Lab, c lab.Cluster, frontend netip.AddrPort) error {
	file := filepath.Join(l.Dir, reachName+".yaml")
	definition, err := json.Marshal(map[string]any{
		"namespace": reachNamespace, "name": reachName, "vips": []string{frontend.Addr().String()},
		"annotations": map[string]string{"service.cilium.io/global": "true"},
		"selector":    map[string]string{"app": "nobody-has-this"},
		"ports":       []any{map[string]any{"name": reachPort, "port": frontend.Port(), "protocol": "TCP"}},
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, definition, 0o600); err != nil {
		return err
	}
	ns, err := netns.Open(c.Operator.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	out, err := ns.Command(ctx, l.Weft, "service", "add", "-f", file, "--etcd", c.EtcdConfig).CombinedOutput()
	if err != nil {
		return fmt.Errorf("add the service: %w: %s", err, out)
	}
	return nil
}

// reachLines are the results: p50 and p99, each the bare watch's time over ours, so that more is
// better as everywhere.
func reachLines(t reachTimes) ([]Line, error) {
	var lines []Line
	for _, q := range []struct {
		name        string
		share, goal float64
	}{{"p50", 0.5, 1 / reachGoalP50}, {"p99", 0.99, 1 / reachGoalP99}} {
		ours, err := stats.Quantile(t.Maps, q.share)
		if err != nil {
			return nil, err
		}
		bare, err := stats.Quantile(t.Watch, q.share)
		if err != nil {
			return nil, err
		}
		lines = append(lines, Line{
			Row:   "C2",
			What:  fmt.Sprintf("%s: bare watch %.0f us / maps %.0f us", q.name, bare/1e3, ours/1e3),
			Ratio: bare / ours, OfNS: ours, ToNS: bare, Goal: q.goal, Met: bare/ours >= q.goal, Valid: true,
		})
	}
	return lines, nil
}
