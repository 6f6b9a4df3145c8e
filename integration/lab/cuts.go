// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net"

	"github.com/weft-net/weft/internal/netns"
)

// cuts lists the links that are down now, whoever took them down. A link that cannot be looked at,
// because its namespace is gone or we are not root, is not among them.
func (l *Lab) cuts() []string {
	cut := []string{}
	for _, name := range l.linkNames() {
		w, err := l.wires(name)
		if err != nil {
			continue
		}
		ns, err := netns.Open(w.netns)
		if err != nil {
			continue
		}
		if dev, err := ns.Link(w.dev); err == nil && dev.Flags&net.FlagUp == 0 {
			cut = append(cut, name)
		}
		ns.Close()
	}
	return cut
}
