// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var inlineCommand = regexp.MustCompile("`(weft [^`]+)`")

// TestRunbooks_CommandsExist parses every weft command of the runbooks against the tree of commands:
// the command is there, it knows the flags, and it takes so many arguments.
func TestRunbooks_CommandsExist(t *testing.T) {
	files, err := filepath.Glob("../../docs/runbooks/*.md")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d runbooks, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var commands []string
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "    ") && strings.HasPrefix(strings.TrimSpace(line), "weft ") {
				commands = append(commands, strings.TrimSpace(line))
			}
		}
		for _, m := range inlineCommand.FindAllStringSubmatch(string(text), -1) {
			commands = append(commands, m[1])
		}
		for _, c := range commands {
			if strings.Contains(c, "\n") {
				t.Errorf("%s: %q is broken over two lines", file, c)
				continue
			}
			if err := parses(c); err != "" {
				t.Errorf("%s: %q: %s", file, c, err)
			}
		}
	}
}

// parses says what is wrong with a command line, without running it.
func parses(line string) string {
	words := strings.Fields(line)[1:]
	root := newRoot(&app{in: strings.NewReader(""), out: io.Discard, err: io.Discard, env: func(string) (string, bool) { return "", false }})
	cmd, rest, err := root.Find(words)
	if err != nil {
		return err.Error()
	}
	if cmd == root || cmd.HasSubCommands() {
		if len(cmd.Flags().Args()) == 0 && cmd.Name() == words[len(words)-1] {
			return "" // a group of commands, named in a sentence
		}
		return "no such command"
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err.Error()
	}
	if cmd.Args == nil {
		return ""
	}
	if err := cmd.Args(cmd, cmd.Flags().Args()); err != nil && strings.Contains(err.Error(), "too many") {
		return err.Error() // what is missing may be missing in a sentence
	}
	return ""
}
