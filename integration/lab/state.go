// Copyright The Weft Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrNotUp is returned where a command needs a lab that stands.
var ErrNotUp = errors.New("no lab of that name is up")

// save writes what is known of the lab, in one step. It makes no directory of a lab that was removed.
func (l *Lab) save() error {
	switch mark, err := markOf(l.Dir); {
	case err != nil:
		return err
	case mark != l.Name:
		return fmt.Errorf("lab %s in %s was removed meanwhile", l.Name, l.Dir)
	}
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(l.Dir, "lab.json"), append(b, '\n'), 0o644)
}

// Open reads a lab that stands. Without one the error is ErrNotUp.
func Open(dir string) (*Lab, error) {
	b, err := os.ReadFile(filepath.Join(dir, "lab.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("load lab %s: %w; start it with 'weft lab up'", dir, ErrNotUp)
	}
	if err != nil {
		return nil, fmt.Errorf("load lab: %w", err)
	}
	var l Lab
	if err := json.Unmarshal(b, &l); err != nil {
		name, _ := markOf(dir) // without one the hint is wrong, and the error before it right
		return nil, fmt.Errorf("load lab %s: %w; remove it with 'weft lab down%s'", dir, err, flagsOf(name, dir))
	}
	return &l, nil
}

// update changes the lab under its lock, so that two commands at once lose nothing.
func update(ctx context.Context, dir string, change func(*Lab) error) error {
	unlock, err := lock(ctx, dir, turnTimeout)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lab %s: %w; start it with 'weft lab up'", dir, ErrNotUp)
	}
	if err != nil {
		return err
	}
	defer unlock()
	l, err := Open(dir)
	if err != nil {
		return err
	}
	// What the change did before it failed was done too.
	return errors.Join(change(l), l.save())
}

// cluster finds a cluster by name.
func (l *Lab) cluster(name string) (*Cluster, error) {
	var have []string
	for i := range l.Clusters {
		if l.Clusters[i].Name == name {
			return &l.Clusters[i], nil
		}
		have = append(have, l.Clusters[i].Name)
	}
	return nil, fmt.Errorf("no cluster %q; there are %s", name, strings.Join(have, ", "))
}

// node finds a node by name.
func (l *Lab) node(name string) (*Cluster, *Node, error) {
	var have []string
	for i := range l.Clusters {
		c := &l.Clusters[i]
		for j := range c.Nodes {
			if c.Nodes[j].Name == name {
				return c, &c.Nodes[j], nil
			}
			have = append(have, c.Nodes[j].Name)
		}
	}
	return nil, nil, fmt.Errorf("no node %q; there are %s", name, strings.Join(have, ", "))
}

// pod finds a pod by name.
func (l *Lab) pod(name string) (*Node, *Pod, error) {
	var have []string
	for n, p := range l.pods() {
		if p.Name == name {
			return n, p, nil
		}
		have = append(have, p.Name)
	}
	return nil, nil, fmt.Errorf("no pod %q; there are %s", name, strings.Join(have, ", "))
}

// pods walks all pods with their nodes.
func (l *Lab) pods() func(yield func(*Node, *Pod) bool) {
	return func(yield func(*Node, *Pod) bool) {
		for i := range l.Clusters {
			for j := range l.Clusters[i].Nodes {
				n := &l.Clusters[i].Nodes[j]
				for k := range n.Pods {
					if !yield(n, &n.Pods[k]) {
						return
					}
				}
			}
		}
	}
}
