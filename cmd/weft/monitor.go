// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/agent/api"
)

type eventView struct {
	Time         time.Time `json:"time"`
	Type         string    `json:"type"`
	Reason       string    `json:"reason,omitempty"`
	Direction    string    `json:"direction,omitempty"`
	Source       endView   `json:"source"`
	Destination  endView   `json:"destination"`
	Backend      *endView  `json:"backend,omitempty"`
	Service      string    `json:"service,omitempty"`
	Protocol     string    `json:"protocol"`
	TCPFlags     uint32    `json:"tcpFlags,omitempty"`
	Endpoint     uint32    `json:"endpoint,omitempty"`
	Node         string    `json:"node,omitempty"`
	Packets      uint64    `json:"packets,omitempty"`
	Bytes        uint64    `json:"bytes,omitempty"`
	ReplyPackets uint64    `json:"replyPackets,omitempty"`
	ReplyBytes   uint64    `json:"replyBytes,omitempty"`
	Lost         uint64    `json:"lost,omitempty"`
}

type endView struct {
	Address  string   `json:"address"`
	Port     uint32   `json:"port,omitempty"`
	Identity uint32   `json:"identity"`
	Name     string   `json:"name,omitempty"`
	Cluster  string   `json:"cluster,omitempty"`
	Labels   []string `json:"labels,omitempty"`
}

func endOf(e *api.FlowEnd) endView {
	return endView{e.GetAddress(), e.GetPort(), e.GetIdentity(), e.GetName(), e.GetCluster(), e.GetLabels()}
}

// String is address:port and, where known, who it is.
func (e endView) String() string {
	who := e.Name
	if e.Cluster != "" && who != "" {
		who = e.Cluster + ":" + who
	}
	if who == "" {
		who = fmt.Sprintf("identity %d", e.Identity)
	}
	return e.address() + " (" + who + ")"
}

func (e endView) address() string {
	if e.Port == 0 {
		return e.Address
	}
	return net.JoinHostPort(e.Address, strconv.FormatUint(uint64(e.Port), 10))
}

func monitorCommand(a *app) *cobra.Command {
	var request api.MonitorRequest
	cmd := &cobra.Command{
		Use: "monitor", Short: "Print what happens to flows: new, closed, refused; until interrupted", Args: atMost(0),
		Example: "  weft monitor --type refused\n  weft monitor --address 10.0.1.7 -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, t := range request.Types {
				if !slices.Contains(eventTypes(), t) {
					return usage(cmd, fmt.Errorf("type %q: use %s", t, strings.Join(eventTypes(), ", ")))
				}
			}
			if request.Address != "" {
				if _, err := netip.ParseAddr(request.Address); err != nil {
					return usage(cmd, fmt.Errorf("address %q: use one such as 10.0.1.7 or fd00::7", request.Address))
				}
			}
			a.endless = true
			c, conn, err := a.client()
			if err != nil {
				return err
			}
			defer conn.Close()
			stream, err := c.Monitor(cmd.Context(), &request)
			if err != nil {
				return err
			}
			for {
				e, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				if err := printEvent(a, e); err != nil {
					return err
				}
			}
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVarP(&request.Types, "type", "t", nil, "only events of these types: new, closed, refused")
	flags.StringVar(&request.Address, "address", "", "only events with this address at either end")
	flags.Uint32Var(&request.Endpoint, "endpoint", 0, "only events of the endpoint with this id")
	must(cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(eventTypes(), cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// eventTypes are the words for types of events, as agents know them.
func eventTypes() []string { return []string{"new", "closed", "refused"} }

func printEvent(a *app, e *api.FlowEvent) error {
	v := eventView{
		Time: nanos(e.Time), Type: e.Type, Reason: e.Reason, Direction: e.Direction, Source: endOf(e.Source), Destination: endOf(e.Destination),
		Service: e.Service, Protocol: e.Protocol, TCPFlags: e.TcpFlags, Endpoint: e.Endpoint, Node: e.Node,
		Packets: e.Packets, Bytes: e.Bytes, ReplyPackets: e.ReplyPackets, ReplyBytes: e.ReplyBytes, Lost: e.Lost,
	}
	if e.Backend != nil {
		backend := endOf(e.Backend)
		v.Backend = &backend
	}
	if a.format == formatJSON || a.format == formatYAML {
		return printItem(a.out, a.format, v)
	}
	if v.Lost > 0 {
		fmt.Fprintf(a.out, "(%d events lost)\n", v.Lost)
	}
	_, err := fmt.Fprintln(a.out, v)
	return err
}

// String is the event on one line.
func (v eventView) String() string {
	to := v.Destination.String()
	if v.Service != "" {
		to = fmt.Sprintf("%s (service %s)", v.Destination.address(), v.Service)
	}
	s := fmt.Sprintf("%s %-7s %-5s %v -> %s", v.Time.Local().Format("15:04:05.000"), v.Type, v.Protocol, v.Source, to)
	if v.Backend != nil {
		s += fmt.Sprintf(" = %v", *v.Backend)
	}
	if v.Reason != "" {
		s += "  " + v.Reason
	}
	if v.Type == "closed" {
		s += fmt.Sprintf("  %d packets %d bytes, back %d packets %d bytes", v.Packets, v.Bytes, v.ReplyPackets, v.ReplyBytes)
	}
	return s
}
