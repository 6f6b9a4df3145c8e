// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"github.com/vishvananda/netlink/nl"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// forwardDrops names the base chains at the forward hook whose policy is DROP: what endpoints send
// through the node's stack (to the outside, or when no program takes it) would end there, as on a
// machine on which Docker runs. A chain may still have rules that accept; that is not looked into.
func forwardDrops(h *host) ([]string, error) {
	nft, err := nftForwardDrops(h)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	legacy, err := legacyForwardDrops(h)
	if err != nil {
		return nft, fmt.Errorf("iptables: %w", err)
	}
	return append(nft, legacy...), nil
}

// Numbers of nf_tables netlink, which the library does not have.
const (
	nfnlSubsysNFTables = 10
	nftMsgGetChain     = 4
	nftaChainTable     = 1
	nftaChainName      = 3
	nftaChainHook      = 4
	nftaChainPolicy    = 5
	nftaHookNum        = 1
	hookForward        = 2
	policyDrop         = 0
)

// nftForwardDrops asks nf_tables, which iptables-nft uses, too.
func nftForwardDrops(h *host) ([]string, error) {
	socket, err := nl.GetNetlinkSocketAt(vnetns.NsHandle(h.ns.Fd()), vnetns.None(), unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	req := nl.NewNetlinkRequest(nfnlSubsysNFTables<<8|nftMsgGetChain, unix.NLM_F_DUMP)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: socket}}
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC})
	answers, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL) {
		return nil, nil // a kernel without nf_tables
	}
	if err != nil {
		return nil, err
	}
	var found []string
	for _, a := range answers {
		if chain, ok := parseForwardDrop(a); ok {
			found = append(found, chain)
		}
	}
	return found, nil
}

// parseForwardDrop reads one chain and says whether it drops at the forward hook. The names of
// families are those of nft.
func parseForwardDrop(msg []byte) (chain string, ok bool) {
	if len(msg) < nl.SizeofNfgenmsg {
		return "", false
	}
	family, known := map[byte]string{unix.AF_INET: "ip", unix.AF_INET6: "ip6", 1: "inet"}[msg[0]]
	if !known {
		return "", false
	}
	attrs, err := nl.ParseRouteAttr(msg[nl.SizeofNfgenmsg:])
	if err != nil {
		return "", false
	}
	var table, name string
	forward, drop := false, false
	for _, a := range attrs {
		switch a.Attr.Type &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER) {
		case nftaChainTable:
			table = strings.TrimRight(string(a.Value), "\x00")
		case nftaChainName:
			name = strings.TrimRight(string(a.Value), "\x00")
		case nftaChainPolicy:
			drop = len(a.Value) == 4 && binary.BigEndian.Uint32(a.Value) == policyDrop
		case nftaChainHook:
			inner, err := nl.ParseRouteAttr(a.Value)
			if err != nil {
				return "", false
			}
			for _, h := range inner {
				if h.Attr.Type&^unix.NLA_F_NET_BYTEORDER == nftaHookNum && len(h.Value) == 4 {
					forward = binary.BigEndian.Uint32(h.Value) == hookForward
				}
			}
		}
	}
	return fmt.Sprintf("%s %s %s", family, table, name), forward && drop
}

// Options and sizes of the legacy iptables interface, which Go has no names for.
const (
	soGetInfo      = 64
	soGetEntries   = 65
	tableName      = 32 // bytes of a name
	infoSize       = 84 // struct ipt_getinfo, ip6t_getinfo
	entriesHead    = 40 // struct ipt_get_entries before the entries
	verdictDrop    = -1 // -NF_DROP - 1
	targetVerdict  = 32 // offset of the verdict in a standard target
	entryTargetOff = 88 // offset of target_offset in struct ipt_entry
	entry6Target   = 140
)

// legacyForwardDrops asks the interface of iptables-legacy, but only for tables that are there
// already: to ask for the others would make them.
func legacyForwardDrops(h *host) ([]string, error) {
	var found []string
	err := h.ns.Do(func() error {
		for _, t := range []struct {
			names         string
			chain         string
			family, level int
			targetOff     int
		}{
			{"/proc/thread-self/net/ip_tables_names", "iptables FORWARD", unix.AF_INET, unix.IPPROTO_IP, entryTargetOff},
			{"/proc/thread-self/net/ip6_tables_names", "ip6tables FORWARD", unix.AF_INET6, unix.IPPROTO_IPV6, entry6Target},
		} {
			names, err := os.ReadFile(t.names)
			if err != nil || !strings.Contains("\n"+string(names), "\nfilter\n") {
				continue
			}
			drops, err := legacyDrops(t.family, t.level, t.targetOff)
			if err != nil {
				return err
			}
			if drops {
				found = append(found, t.chain)
			}
		}
		return nil
	})
	return found, err
}

func legacyDrops(family, level, targetOff int) (bool, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	info := make([]byte, infoSize)
	copy(info, "filter")
	if err := getsockopt(fd, level, soGetInfo, info); err != nil {
		return false, err
	}
	// name[32], valid_hooks, hook_entry[5], underflow[5], num_entries, size
	word := func(i int) uint32 { return binary.NativeEndian.Uint32(info[tableName+4*i:]) }
	underflow, size := word(6+hookForward), word(12)
	entries := make([]byte, entriesHead+int(size))
	copy(entries, "filter")
	binary.NativeEndian.PutUint32(entries[tableName:], size)
	if err := getsockopt(fd, level, soGetEntries, entries); err != nil {
		return false, err
	}
	return policyDrops(entries[entriesHead:], int(underflow), targetOff), nil
}

// policyDrops says whether the entry at an offset, which holds a chain's policy, is DROP.
func policyDrops(entries []byte, at, targetOff int) bool {
	if at < 0 || at+targetOff+2 > len(entries) {
		return false
	}
	target := at + int(binary.NativeEndian.Uint16(entries[at+targetOff:]))
	if target+targetVerdict+4 > len(entries) {
		return false
	}
	return int32(binary.NativeEndian.Uint32(entries[target+targetVerdict:])) == verdictDrop
}

func getsockopt(fd, level, option int, buf []byte) error {
	size := uint32(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
