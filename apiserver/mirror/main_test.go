// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/weft-net/weft/kvstore"
	"github.com/weft-net/weft/kvstore/kvstoretest"
	"github.com/weft-net/weft/kvstore/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// side is the cluster that has the mirrors: "own", with id 1.
type side struct {
	*kvstoretest.Server
	t      *testing.T
	client *kvstore.Client
	dir    string
	states string
}

func newSide(t *testing.T) *side {
	t.Helper()
	s := &side{Server: kvstoretest.Start(t, kvstoretest.Options{}), t: t}
	s.client = s.Client()
	s.dir, s.states = filepath.Join(t.TempDir(), "mesh"), t.TempDir()
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	epoch, err := schema.EncodeEpoch(schema.Epoch{ID: strings.Repeat("ab", 16)})
	if err != nil {
		t.Fatal(err)
	}
	s.Put(s.client, schema.EpochKey, string(epoch))
	s.Put(s.client, schema.ClusterConfigPrefix+"own", `{"id":1,"capabilities":{}}`)
	return s
}

// settings are those of a mirror in a hurry.
func (s *side) settings(name string) Config {
	cfg := DefaultConfig()
	cfg.Name, cfg.Cluster, cfg.ClusterID, cfg.Dir = name, "own", 1, s.dir
	cfg.StateDir = filepath.Join(s.states, name)
	cfg.LeaderTTL, cfg.Grace, cfg.Say, cfg.Look, cfg.Retry = 2*time.Second, time.Hour, time.Hour, 20*time.Millisecond, 10*time.Millisecond
	cfg.Follow = kvstoretest.WatchConfig()
	m := &cfg.Mesh
	m.Connect = time.Second
	m.Poll, m.ConfigPoll, m.RetryMin, m.RetryMax, m.Relist = 50*time.Millisecond, 50*time.Millisecond, 10*time.Millisecond, 100*time.Millisecond, 10*time.Millisecond
	m.Guard = kvstore.GuardConfig{Limit: time.Hour, Brief: time.Hour, Settle: 10 * time.Millisecond, Heartbeat: time.Minute, Follow: kvstoretest.WatchConfig()}
	return cfg
}

// start runs a mirror until the test ends or it is stopped.
func (s *side) start(name string, change func(*Config)) (m *Mirror, stop func()) {
	s.t.Helper()
	cfg := s.settings(name)
	if change != nil {
		change(&cfg)
	}
	m, err := New(cfg, kvstoretest.NewClient(s.t, s.ClientConfig()), prometheus.NewRegistry(), slog.New(slog.NewTextHandler(s.t.Output(), nil)))
	if err != nil {
		s.t.Fatal(err)
	}
	return m, kvstoretest.Go(s.t, m.Run)
}

// newCopied is a side whose mirror, "one", has copied a remote.
func newCopied(t *testing.T) (s *side, far *remote, m *Mirror, stop func()) {
	t.Helper()
	s, far = newSide(t), newRemote(t, "far", 2)
	far.fill()
	s.knows("far", far.ClientConfig())
	m, stop = s.start("one", nil)
	s.wantCopy(far)
	return s, far, m, stop
}

// newCopiedPair is a side that copied two filled remotes.
func newCopiedPair(t *testing.T) (s *side, far, near *remote, stop func()) {
	t.Helper()
	s, far, near = newSide(t), newRemote(t, "far", 2), newRemote(t, "near", 3)
	for _, r := range []*remote{far, near} {
		r.fill()
		s.knows(r.name, r.ClientConfig())
	}
	_, stop = s.start("one", nil)
	s.wantCopy(far)
	s.wantCopy(near)
	return s, far, near, stop
}

// prefixes are those that readers of a remote look at.
func prefixes() []string {
	return []string{schema.CachePrefix, schema.ClusterConfigPrefix, schema.SyncedPrefix}
}

// copies are the mod revisions of what readers of a remote look at.
func (s *side) copies() map[string]int64 {
	s.t.Helper()
	return s.revisions(prefixes()...)
}

// knows writes the client file of a remote, or removes it.
func (s *side) knows(name string, cfg kvstore.Config) {
	s.t.Helper()
	temp := filepath.Join(s.t.TempDir(), "file")
	if err := os.WriteFile(temp, fmt.Appendf(nil, "endpoints: [%s]\n", strings.Join(cfg.Endpoints, ", ")), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(temp, filepath.Join(s.dir, name)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *side) knowsNot(name string) {
	s.t.Helper()
	if err := os.Remove(filepath.Join(s.dir, name)); err != nil {
		s.t.Fatal(err)
	}
}

// put writes a row of our store.
func put[K comparable, V any](s *side, codec schema.Codec[K, V], k K, v V) {
	s.t.Helper()
	value, err := codec.Encode(k, v)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.client.Put(s.t.Context(), codec.Prefix+codec.FormatKey(k), value, 0); err != nil {
		s.t.Fatal(err)
	}
}

// under is what stands under a prefix.
func (s *side) under(prefix string) map[string]string {
	s.t.Helper()
	l, err := s.client.List(s.t.Context(), prefix, kvstore.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	out := map[string]string{}
	for _, kv := range l.KVs {
		out[kv.Key] = string(kv.Value)
	}
	return out
}

// revisions are the mod revisions of what stands under prefixes.
func (s *side) revisions(prefixes ...string) map[string]int64 {
	s.t.Helper()
	out := map[string]int64{}
	for _, prefix := range prefixes {
		l, err := s.client.List(s.t.Context(), prefix, kvstore.ListOptions{})
		if err != nil {
			s.t.Fatal(err)
		}
		for _, kv := range l.KVs {
			out[kv.Key] = kv.ModRevision
		}
	}
	return out
}

// wantCopy waits until exactly the rows of a remote's store stand as copies, with config and marks.
func (s *side) wantCopy(r *remote) {
	s.t.Helper()
	kvstoretest.Eventually(s.t, func() string {
		want := r.copied()
		got := map[string]string{}
		for _, resource := range resources {
			maps.Copy(got, s.under(schema.MirrorPrefix(r.name, resource)))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return "copies (-want +got):\n" + diff
		}
		return s.lacksMarks(r)
	})
}

func (s *side) lacksMarks(r *remote) string {
	config, err := schema.ClusterConfigs().Decode(r.name, []byte(s.under(schema.ClusterConfigPrefix + r.name)[schema.ClusterConfigPrefix+r.name]))
	if err != nil || config.ID != r.id || !config.Cached || !config.SyncedCanaries {
		return fmt.Sprintf("cluster-config %+v, %v", config, err)
	}
	marks := s.under(schema.SyncedPrefix + r.name + "/")
	if len(marks) != 4 {
		return fmt.Sprintf("marks %v", marks)
	}
	return ""
}

// row is what the mirror says of a remote.
func (s *side) row(name string) (schema.Mirror, bool) {
	s.t.Helper()
	kv, ok, err := s.client.Get(s.t.Context(), schema.MirrorsPrefix+name)
	if err != nil {
		s.t.Fatal(err)
	}
	if !ok {
		return schema.Mirror{}, false
	}
	m, err := schema.Mirrors().Decode(name, kv.Value)
	if err != nil {
		s.t.Fatal(err)
	}
	return m, true
}

// says waits until the mirror says something of a remote.
func (s *side) says(name string, ok func(schema.Mirror) bool) schema.Mirror {
	s.t.Helper()
	var last schema.Mirror
	kvstoretest.Eventually(s.t, func() string {
		m, there := s.row(name)
		if last = m; there && ok(m) {
			return ""
		}
		return fmt.Sprintf("the mirror says %+v (%v)", m, there)
	})
	return last
}

func complete(m schema.Mirror) bool { return m.Complete && m.Connected && !m.Holding }

// gone waits until nothing stands of a remote.
func (s *side) gone(name string) {
	s.t.Helper()
	kvstoretest.Eventually(s.t, func() string {
		left := s.under(schema.CachePrefix)
		maps.DeleteFunc(left, func(k, _ string) bool { return !strings.Contains(k, "/v1/"+name+"/") })
		maps.Copy(left, s.under(schema.SyncedPrefix+name+"/"))
		for _, key := range []string{schema.ClusterConfigPrefix + name, schema.MirrorsPrefix + name} {
			if _, ok, err := s.client.Get(s.t.Context(), key); err != nil || ok {
				left[key] = "there"
			}
		}
		if len(left) > 0 {
			return fmt.Sprintf("left of %s: %v", name, left)
		}
		return ""
	})
}

// always checks something again and again for a short while, and fails at once where it is not so.
func (s *side) always(what string, ok func() bool) {
	s.t.Helper()
	end := time.NewTimer(300 * time.Millisecond)
	defer end.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if !ok() {
			s.t.Fatalf("not always so: %s", what)
		}
		select {
		case <-end.C:
			return
		case <-tick.C:
		}
	}
}

// remote is another cluster with its store.
type remote struct {
	*kvstoretest.Server
	t      *testing.T
	name   string
	id     uint32
	client *kvstore.Client
}

func newRemote(t *testing.T, name string, id uint32) *remote {
	t.Helper()
	s := kvstoretest.Start(t, kvstoretest.Options{})
	r := &remote{s, t, name, id, s.Client()}
	r.config(`{"id":%d,"capabilities":{}}`, id)
	return r
}

func (r *remote) config(format string, args ...any) {
	r.t.Helper()
	r.put(schema.ClusterConfigPrefix+r.name, fmt.Sprintf(format, args...))
}

func (r *remote) put(key, value string) { r.t.Helper(); r.Put(r.client, key, value) }
func (r *remote) del(key string)        { r.t.Helper(); r.Delete(r.client, key) }

func (r *remote) scope() schema.Scope { return schema.Scope{Cluster: r.name, ClusterID: r.id} }

// node, address, identity and service write a row each; n tells them apart. A member that nobody knows is
// in each of the JSON ones, and must come through.
func (r *remote) node(n int) (key string) {
	key = fmt.Sprintf("%s%s/n%d", schema.NodesPrefix, r.name, n)
	r.put(key, fmt.Sprintf(`{"Name":"n%d","Cluster":"%s","IPAddresses":[{"Type":"InternalIP","IP":"172.16.%d.%d"}],`+
		`"IPv4AllocCIDR":{"IP":"10.%d.%d.0","Mask":"////AA=="},"ClusterID":%d,"Later": {"a" : 1}}`, n, r.name, r.id, n, r.id, n, r.id))
	return key
}

func (r *remote) address(n, last int) (key string) {
	a := netip.AddrFrom4([4]byte{10, byte(r.id), byte(n), byte(last)})
	key = schema.IPsPrefix + a.String()
	r.put(key, fmt.Sprintf(`{"IP":"%s","Mask":null,"HostIP":"172.16.%d.%d","ID":%d,"Key":0,"Metadata":"","Later":%d}`, a, r.id, n, r.id<<16+5, last))
	return key
}

func (r *remote) identity(n uint32) (key string) {
	key = schema.IdentityMasterKey(r.id<<16 + n)
	r.put(key, "k8s:app=web;k8s:"+schema.ClusterLabelKey+"="+r.name+";")
	return key
}

func (r *remote) service(name string) (key string) {
	key = schema.ServicesPrefix + r.name + "/default/" + name
	r.put(key, fmt.Sprintf(`{"cluster":"%s","namespace":"default","name":"%s","frontends":{},"backends":{"10.%d.1.5":{"http":{"Protocol":"TCP","Port":80}}},`+
		`"labels":{},"selector":{},"includeExternal":true,"shared":true,"clusterID":%d,"later":true}`, r.name, name, r.id, r.id))
	return key
}

// fill writes two nodes of two addresses each, an identity and a service.
func (r *remote) fill() {
	r.t.Helper()
	for n := 1; n <= 2; n++ {
		r.node(n)
		r.address(n, 5)
		r.address(n, 6)
	}
	r.identity(5)
	r.service("web")
}

// copied is what should stand of it in another store.
func (r *remote) copied() map[string]string {
	r.t.Helper()
	out := map[string]string{}
	for resource, prefix := range map[schema.Resource]string{
		schema.ResourceNodes: schema.NodesPrefix + r.name + "/", schema.ResourceIPs: schema.IPsPrefix,
		schema.ResourceIdentities: schema.IdentityIDsPrefix, schema.ResourceServices: schema.ServicesPrefix + r.name + "/",
	} {
		l, err := r.client.List(r.t.Context(), prefix, kvstore.ListOptions{})
		if err != nil {
			r.t.Fatal(err)
		}
		for _, kv := range l.KVs {
			out[schema.MirrorPrefix(r.name, resource)+strings.TrimPrefix(kv.Key, prefix)] = string(kv.Value)
		}
	}
	return out
}
