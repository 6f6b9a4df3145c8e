// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

// variants are all ways that packets may go. The list is the only place where one is registered.
func variants() []Variant {
	return []Variant{
		{Veth, buildVeth},
		{Kernel, buildKernel},
		{KernelVXLAN, buildKernelVXLAN},
		{Floor, buildFloor},
		{NodeKernel, buildNodeKernel},
		{NodeFloor, buildNodeFloor},
		{Native, buildNative},
		{VXLAN, buildVXLAN},
		{Local, buildLocal},
		{Service, buildService},
		{Services, buildServices},
		{ServiceAny, buildServiceAny},
	}
}

// rows is the table of goals, as far as it is measured. A row is registered by standing here.
func rows(m Machine) []Row {
	rr, crr, node := controlsRR(m), controlsCRR(m), controlsNode(m)
	return []Row{
		{
			Name: "D1", What: "native, established: ours against empty programs", Controls: rr,
			Ratios: []Ratio{{Workload: TCPRR, Of: Native, To: Floor, Goal: 0.93}},
		},
		{
			Name: "D1b", What: "native, established: ours against the wire and against routing", Controls: rr,
			Ratios: []Ratio{
				{Workload: TCPRR, Of: Native, To: Veth, Goal: 0.84},
				{Workload: TCPRR, Of: Native, To: Kernel, Goal: 1.05},
			},
		},
		{
			Name: "D2", What: "native, new connections: ours against empty programs", Controls: crr,
			Ratios: []Ratio{{Workload: TCPCRR, Of: Native, To: Floor, Goal: 0.90, ByP50: true}},
		},
		{
			Name: "D3", What: "tunnel, established: ours against the kernel's device", Controls: rr,
			Ratios: []Ratio{{Workload: TCPRR, Of: VXLAN, To: KernelVXLAN, Goal: 1.20}},
		},
		{
			Name: "D4", What: "new connections to one address of 27,000 services, against one service", Controls: crr,
			Ratios: []Ratio{{Workload: TCPCRR, Of: Services, To: Service, Goal: 0.98}},
		},
		{
			Name: "D4b", What: "new connections to random addresses of 27,000, against one service", Controls: crr,
			Ratios: []Ratio{{Workload: TCPCRR, Of: ServiceAny, To: Service, Goal: 0.92}},
		},
		{
			Name: "D4c", What: "new connections by service, against direct", Controls: crr,
			Ratios: []Ratio{{Workload: TCPCRR, Of: Service, To: Native, Goal: 0.98}},
		},
		{
			Name: "C2", What: "a backend changes in one cluster: maps of all nodes of the other, against a bare watch",
			Measure: measureReach,
		},
		{
			Name: "C4", What: "a change told to many clients over TLS: processor time and lag of the API server, etcd and its proxy",
			Measure: measureFanout,
		},
		{
			Name: "C4b", What: "what is encoded of a change for one client, and for many",
			Measure: measureEncoding,
		},
		{
			Name: "herd", What: "all clients list at once after a restart: time until the last has all, and memory, of etcd and the API server",
			Measure: measureHerd,
		},
		{
			Name: "resume", What: "clients that know all come back after a restart: what they are sent",
			Measure: measureResume,
		},
		{
			Name: "copies", What: "the mirror copies many clusters, simulated by prefix, and follows their changes",
			Measure: measureCopies,
		},
		{
			Name: "C5", What: "a node returns after many missed revisions: its maps, against one range over the rows",
			Measure: measureReconnect,
		},
		{
			Name: "C8", What: "identity numbers given out and collected, against bare transactions",
			Measure: measureNumbers,
		},
		{
			Name: "lineage", What: "an agent reconnects and nothing was missed: knowing it, against bare streams",
			Measure: measureLineage,
		},
		{
			Name: "reseed", What: "a store comes back empty: rows written back, against bare puts of as many",
			Measure: measureReseed,
		},
		{
			Name: "native", What: "native between nodes, against wire, routing and empty programs", Controls: append(rr, crr...),
			Ratios: against(Native, Veth, Kernel, Floor),
		},
		{
			Name: "vxlan", What: "tunnel between nodes, against wire, the kernel's device and empty programs", Controls: append(rr, crr...),
			Ratios: against(VXLAN, Veth, KernelVXLAN, Floor),
		},
		{
			Name: "node", What: "within a node, against wire, routing and empty programs", Controls: node,
			Ratios: against(Local, Veth, NodeKernel, NodeFloor),
		},
		{
			Name: "controls", What: "what the kernel and empty programs do, against the bare wire", Controls: append(rr, crr...),
			Ratios: append(append(append(append(against(Kernel, Veth), against(KernelVXLAN, Veth)...), against(Floor, Veth)...),
				against(NodeKernel, Veth)...), against(NodeFloor, Veth)...),
		},
	}
}

// against compares a variant with others under every workload, without goals.
func against(of string, to ...string) []Ratio {
	var ratios []Ratio
	for _, w := range []Workload{TCPRR, TCPCRR, UDPRR, Stream} {
		for _, t := range to {
			ratios = append(ratios, Ratio{Workload: w, Of: of, To: t})
		}
	}
	return ratios
}

// controlsRR are the controls of established connections between nodes. What packets cost is a
// smaller part of the whole where system calls are slow, so the values depend on the machine.
func controlsRR(m Machine) []Control {
	if m.SyscallNS > slowSyscall {
		return []Control{{TCPRR, Floor, Veth, 0.89, 0.95}, {TCPRR, KernelVXLAN, Veth, 0.61, 0.68}}
	}
	return []Control{{TCPRR, Floor, Veth, 0.85, 0.91}, {TCPRR, KernelVXLAN, Veth, 0.59, 0.66}}
}

// controlsCRR are the controls of new connections between nodes.
func controlsCRR(m Machine) []Control {
	if m.SyscallNS > slowSyscall {
		return []Control{{TCPCRR, Floor, Veth, 0.88, 0.95}, {TCPCRR, KernelVXLAN, Veth, 0.59, 0.66}}
	}
	return []Control{{TCPCRR, Floor, Veth, 0.92, 1.01}, {TCPCRR, KernelVXLAN, Veth, 0.59, 0.66}}
}

// controlsNode are the controls of paths within a node.
func controlsNode(m Machine) []Control {
	if m.SyscallNS > slowSyscall {
		return []Control{{TCPRR, NodeFloor, Veth, 0.95, 1.01}, {TCPRR, NodeKernel, Veth, 0.86, 0.92}}
	}
	return []Control{{TCPRR, NodeFloor, Veth, 0.92, 0.98}, {TCPRR, NodeKernel, Veth, 0.85, 0.91}}
}
