// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"strings"
	"time"

	"github.com/weft-net/weft/state"
)

// Line is one line of the status: what it is about, how it is, and what a person can do.
type Line struct {
	Name   string // such as "ipcache"
	State  Health
	Text   string // what is so, one sentence without a full stop
	Reason string // why it is not as it should be
	Do     string // what to do about it
}

// Health is how something is.
type Health uint8

// The states.
const (
	OK   Health = iota // as it should be
	Warn               // works, but somebody should look
	Fail               // does not work
	Off                // not wanted
)

func (h Health) String() string {
	switch h {
	case OK:
		return "ok"
	case Warn:
		return "warning"
	case Fail:
		return "failed"
	}
	return "off"
}

// Status says how the datapath is, the most general first. It reads what is known and asks the
// kernel nothing that could take long.
func (d *Datapath) Status() []Line {
	e, done, ok := d.use()
	if !ok {
		return []Line{{
			Name: "datapath", State: Fail, Text: "not ready",
			Reason: "programs are not loaded yet, or Run has ended", Do: "see the agent's log",
		}}
	}
	defer done()
	r := e.keeper.last()
	u := e.keeper.underlay()
	lines := []Line{
		{Name: "datapath", State: OK, Text: fmt.Sprintf("%s over %s, MTU %d, path MTU %d",
			d.cfg.Mode, u.name, d.cfg.deviceMTU(u), d.cfg.pathMTU(u))},
		deviceLine(r),
		routeLine(r),
		settingsLine(r),
		forwardLine(r),
		endpointLine(d.tables.Endpoints.Len(), r),
	}
	for _, s := range e.reconcilers() {
		lines = append(lines, mapLine(s))
	}
	return append(lines, e.sockets.line(), flowLine(e), eventLine(e))
}

func deviceLine(r report) Line {
	l := Line{Name: "devices", Text: "compared " + age(r.at) + " ago"}
	if r.err != nil {
		l.State, l.Reason = Fail, r.err.Error()
		l.Do = "repair what the reason names; it is tried again at every change and now and then"
	}
	return l
}

func routeLine(r report) Line {
	l := Line{Name: "routes", Text: fmt.Sprintf("%d put back since start", r.restored)}
	switch {
	case len(r.refused) > 0:
		l.State, l.Reason = Warn, "no route for pod CIDR "+strings.Join(r.refused, "; ")
		l.Do = "give the clusters pod CIDRs that do not overlap"
	case time.Since(r.restoredAt) < recently:
		l.State, l.Reason = Warn, "somebody removes routes of weft (protocol 87)"
		l.Do = "tell the network daemon to leave foreign routes alone (networkd: ManageForeignRoutes=no)"
	}
	return l
}

func settingsLine(r report) Line {
	l := Line{Name: "sysctls", Text: "as weft needs them"}
	if len(r.corrections) > 0 {
		var changed []string
		for _, c := range r.corrections {
			changed = append(changed, c.String())
		}
		l.State, l.Reason = Warn, "somebody changed settings that weft needs: "+strings.Join(changed, "; ")
		l.Do = "remove them from /etc/sysctl.d and from the tool that writes them"
	}
	return l
}

func forwardLine(r report) Line {
	l := Line{Name: "forwarding", Text: "no firewall chain drops what is forwarded"}
	switch {
	case r.forwardErr != nil:
		l.State, l.Reason = Warn, "cannot read the firewall: "+r.forwardErr.Error()
	case len(r.forward) > 0:
		l.Text = "policy DROP at the forward hook: " + strings.Join(r.forward, ", ")
		l.State, l.Reason = Warn, "what endpoints send to the outside through the node's stack is dropped unless a rule accepts it"
		l.Do = "accept the pod CIDRs there, for instance iptables -I FORWARD -i lxc+ -j ACCEPT"
	}
	return l
}

func endpointLine(n int, r report) Line {
	l := Line{Name: "endpoints", Text: fmt.Sprintf("%d on this node", n)}
	if len(r.missing) > 0 {
		l.State, l.Reason = Fail, "no device for "+strings.Join(r.missing, ", ")
		l.Do = "delete the endpoints and add them again"
	}
	return l
}

// mapLine is the line of what writes a map.
func mapLine(s state.ReconcilerStatus) Line {
	l := Line{Name: "map " + s.Name, Text: "equal to its table"}
	switch {
	case s.Failed > 0:
		l.State, l.Text = Fail, fmt.Sprintf("%d rows are not in the kernel", s.Failed)
		if s.Err != nil {
			l.Reason = s.Err.Error()
		}
		l.Do = "if it is full, raise its size in the configuration and restart the agent; flows go on meanwhile"
	case s.PruneErr != nil:
		l.State, l.Reason = Warn, "old rows are still there: "+s.PruneErr.Error()
	case s.Pruned.IsZero():
		l.Text = "all known rows are there; nothing is removed before all sources have synced"
	}
	return l
}

// flowText says how many flows there were when they were counted last: a sweep counts them, and to
// count them for each status would take as long as a sweep.
func flowText(entries, young int64, size uint32, at time.Time) string {
	if at.IsZero() {
		return fmt.Sprintf("room for %d entries, not counted yet", size)
	}
	return fmt.Sprintf("%d of %d entries, %d young, counted %s ago", entries, size, young, age(at))
}

func flowLine(e *engine) Line {
	var at time.Time
	if n := e.flows.sweptAt.Load(); n != 0 {
		at = time.Unix(0, n)
	}
	l := Line{Name: "flows", Text: flowText(e.flows.entries.Load(), e.flows.youngEntries.Load(), e.flows.old.m.MaxEntries(), at)}
	if e.flows.pressure.Load() {
		l.State, l.Reason = Warn, "the table is nearly full: new flows begin where idle ones are evicted"
		l.Do = "find who opens so many connections (weft bpf flows list), or raise the size of the flow table"
	}
	return l
}

func eventLine(e *engine) Line {
	l := Line{Name: "events", Text: "none lost"}
	switch lost, err := readLost(e.objects.EventsLost); {
	case err != nil:
		l.State, l.Reason = Warn, err.Error()
	case lost > 0:
		l.Text = fmt.Sprintf("%d lost since the maps were made", lost)
	}
	return l
}

// recently is how long the status tells of what others broke and weft repaired.
const recently = 10 * time.Minute

// age is a time since, for people.
func age(at time.Time) string { return time.Since(at).Round(100 * time.Millisecond).String() }
