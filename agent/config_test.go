// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func goodConfig() Config {
	c := DefaultConfig()
	c.Node, c.Cluster, c.ClusterID = "a1", "a", 1
	c.Addresses = []netip.Addr{netip.MustParseAddr("172.16.0.1"), netip.MustParseAddr("fd00:ffff::1")}
	c.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.1.1.0/24"), netip.MustParsePrefix("fd00:1:1::/64")}
	c.Etcd = "/etc/weft/etcd.yaml"
	return c
}

func TestConfig_DefaultNeedsOnlyWhatCannotBeGuessed(t *testing.T) {
	if err := goodConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	got := configKeys(DefaultConfig().Validate())
	want := []string{"node", "cluster", "cluster-id", "pod-cidrs", "pod-cidrs", "addresses", "etcd"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// configKeys lists the keys of all ConfigErrors in err, in order.
func configKeys(err error) []string {
	var keys []string
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			keys = append(keys, configKeys(e)...)
		}
		return keys
	}
	var c *ConfigError
	if errors.As(err, &c) {
		keys = append(keys, c.Key)
	}
	return keys
}

func TestConfig_Validate(t *testing.T) {
	prefix := netip.MustParsePrefix
	for _, tt := range []struct {
		name string
		set  func(*Config)
		want []string
	}{
		{"node-with-slash", func(c *Config) { c.Node = "a/1" }, []string{"node"}},
		{"cluster-upper-case", func(c *Config) { c.Cluster = "A" }, []string{"cluster"}},
		{"cluster-too-long", func(c *Config) { c.Cluster = strings.Repeat("a", 33) }, []string{"cluster"}},
		{"cluster-id-too-large", func(c *Config) { c.ClusterID = 256 }, []string{"cluster-id"}},
		{"cluster-id-of-large-mesh", func(c *Config) { c.ClusterID, c.MaxClusters = 256, 511 }, nil},
		{"max-clusters", func(c *Config) { c.MaxClusters = 100 }, []string{"max-clusters"}},
		{"mode", func(c *Config) { c.Mode = "geneve" }, []string{"mode"}},
		{"family", func(c *Config) { c.Family = "5" }, []string{"family"}},
		{"family-without-range", func(c *Config) { c.PodCIDRs = c.PodCIDRs[:1] }, []string{"pod-cidrs"}},
		{"range-without-family", func(c *Config) { c.Family = "4" }, []string{"pod-cidrs"}},
		{"two-ranges-of-a-family", func(c *Config) { c.PodCIDRs = append(c.PodCIDRs, prefix("10.2.0.0/24")) }, []string{"pod-cidrs"}},
		{"bits-behind-length", func(c *Config) { c.PodCIDRs[0] = prefix("10.1.1.7/24") }, []string{"pod-cidrs"}},
		{"no-room", func(c *Config) { c.PodCIDRs[0] = prefix("10.1.1.0/31") }, []string{"pod-cidrs"}},
		{"multicast-range", func(c *Config) { c.PodCIDRs[0] = prefix("224.0.0.0/24") }, []string{"pod-cidrs"}},
		{"services-overlap", func(c *Config) { c.ServiceCIDRs = []netip.Prefix{prefix("10.0.0.0/8")} }, []string{"service-cidrs"}},
		{"no-address", func(c *Config) { c.Addresses = nil }, []string{"addresses"}},
		{"address-in-pod-range", func(c *Config) { c.Addresses[0] = netip.MustParseAddr("10.1.1.9") }, []string{"addresses"}},
		{"loopback-address", func(c *Config) { c.Addresses[0] = netip.MustParseAddr("127.0.0.1") }, []string{"addresses"}},
		{"address-twice", func(c *Config) { c.Addresses[1] = c.Addresses[0] }, []string{"addresses"}},
		{"relative-path", func(c *Config) { c.StateDir = "state" }, []string{"state-dir"}},
		{"long-socket", func(c *Config) { c.Socket = "/" + strings.Repeat("s", 107) }, []string{"socket"}},
		{"metrics-without-port", func(c *Config) { c.Metrics = "localhost" }, []string{"metrics"}},
		{"lease", func(c *Config) { c.LeaseTTL = time.Second }, []string{"lease-ttl"}},
		{"too-many-endpoints", func(c *Config) { c.Maps.Endpoints = 65537 }, []string{"map-endpoints"}},
		{"ring-not-a-power", func(c *Config) { c.Maps.EventBytes = 5000 }, []string{"map-events"}},
		{"map-too-small", func(c *Config) { c.Maps.Flows = 0 }, []string{"map-flows"}},
		{"socket-lb", func(c *Config) { c.SocketLB = "endpoints" }, []string{"socket-lb"}},
		{"relative-cgroup", func(c *Config) { c.SocketCgroup = "weft.slice" }, []string{"socket-lb-cgroup"}},
		{"device-name", func(c *Config) { c.Underlay = "a-name-that-is-too-long" }, []string{"underlay"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := goodConfig()
			tt.set(&c)
			if d := cmp.Diff(tt.want, configKeys(c.Validate())); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestApplyYAML_Off: YAML takes the word for a boolean, with quotes for a word.
func TestApplyYAML_Off(t *testing.T) {
	for _, text := range []string{"off", "'off'"} {
		c := goodConfig()
		c.SocketLB = SocketLBAll
		if err := errors.Join(c.ApplyYAML([]byte("socket-lb: "+text)), c.Validate()); err != nil || c.SocketLB != SocketLBOff {
			t.Errorf("%s: %q, %v", text, c.SocketLB, err)
		}
	}
}

func TestApplyYAML(t *testing.T) {
	for _, tt := range []struct{ name, yaml, want string }{
		{"empty", "", ""},
		{"scalar-list", "addresses: 10.0.0.1,fd00::1", ""},
		{"real-list", "addresses: [10.0.0.1, 'fd00::1']", ""},
		{"numbers", "cluster-id: 3\nmap-flows: 4096", ""},
		{"unknown", "pod_cidr: x", "setting pod_cidr: is unknown; did you mean pod-cidrs?"},
		{"far-unknown", "colour: x", "setting colour: is unknown; 'weft agent --help' lists all settings"},
		{"double", "node: a\nnode: b", "already set"},
		{"mapping-value", "node: {a: b}", "setting node: is a mapping"},
		{"list-for-scalar", "node: [a]", "setting node: is a list, want one string"},
		{"not-a-mapping", "- a", "not a mapping"},
		{"not-yaml", "a: b: c", "not YAML"},
		{"bad-number", "cluster-id: many", `setting cluster-id: "many" is not a number within 0 to 4294967295`},
		{"bad-duration", "lease-ttl: 15", `setting lease-ttl: "15" is not a duration`},
		{"bad-prefix", "pod-cidrs: [10.0.0.0]", "setting pod-cidrs:"},
		{"no-value", "node:", "setting node: is empty"},
		{"invalid-utf8", "node: \xff", "not UTF-8 text"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := DefaultConfig()
			err := c.ApplyYAML([]byte(tt.yaml))
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v, want no error", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestReadConfig_EnvironmentWinsOverFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(file, []byte("node: from-file\ncluster: a\nfamily: 4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"WEFT_NODE": "from-env", "WEFT_POD_CIDRS": "10.0.0.0/24, 10.0.1.0/24"}
	c, err := ReadConfig(file, func(k string) (string, bool) { v, ok := env[k]; return v, ok })
	if err != nil {
		t.Fatal(err)
	}
	got := []string{c.Node, c.Cluster, c.Family, list(&c.PodCIDRs, netip.ParsePrefix).String()}
	if d := cmp.Diff([]string{"from-env", "a", "4", "10.0.0.0/24,10.0.1.0/24"}, got); d != "" {
		t.Error(d)
	}
	env["WEFT_CLUSTER_ID"] = "-1"
	if _, err := ReadConfig(file, func(k string) (string, bool) { v, ok := env[k]; return v, ok }); err == nil ||
		!strings.Contains(err.Error(), "setting WEFT_CLUSTER_ID") {
		t.Errorf("got %v, want an error that names the variable", err)
	}
}

func TestSettings_PrintWhatTheyRead(t *testing.T) {
	c := goodConfig()
	var d Config
	for i, s := range c.Settings() {
		other := d.Settings()[i]
		if err := other.Value.Set(s.Value.String()); err != nil {
			t.Errorf("%s: %v", s.Key, err)
		}
		if got := other.Value.String(); got != s.Value.String() {
			t.Errorf("%s: got %q, want %q", s.Key, got, s.Value)
		}
	}
}

func TestSettings_AreDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	for _, s := range c.Settings() {
		if !strings.Contains(string(page), "- **"+s.Key+"**") {
			t.Errorf("docs/config.md does not explain %s", s.Key)
		}
	}
}

func FuzzApplyYAML(f *testing.F) {
	for _, s := range []string{
		"node: a\naddresses: [1.2.3.4]\n", "map-flows: 1e3", "a: &a [*a]", "labels:\n- '!k8s:x'\n", "? {a: b}\n: c", "node: !!binary YQ==",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := DefaultConfig()
		if c.ApplyYAML(data) == nil {
			_ = c.Validate()
		}
	})
}

func TestReadConfig_AllThatIsWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(file, []byte("nodee: a1\nlease-ttl: 5\ncluster: a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := ReadConfig(file, func(name string) (string, bool) { return "many", name == "WEFT_CLUSTER_ID" })
	if c.Cluster != "a" {
		t.Errorf("cluster %q: what is right was not read", c.Cluster)
	}
	got := errors.Join(err, Besides(err, c.Validate())).Error()
	for _, want := range []string{"setting nodee: is unknown; did you mean node?", "setting lease-ttl:", "setting WEFT_CLUSTER_ID:", "setting etcd: is missing"} {
		if strings.Count(got, want) != 1 {
			t.Errorf("not once %q in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "setting cluster-id") {
		t.Errorf("complains of what could not be read:\n%s", got)
	}
}
