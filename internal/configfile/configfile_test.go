// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package configfile

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// config is a Config like those of the roles.
type config struct {
	Name   string
	ID     uint32
	Bare   bool
	Rate   float64
	Names  []string
	Often  time.Duration
	Seldom time.Duration
}

func defaults() config {
	return config{Name: "nobody", ID: 7, Rate: 0.5, Often: 1500 * time.Millisecond, Seldom: math.MaxInt64}
}

func parse(b []byte) (config, error) { return parseOn(defaults(), b) }

// parseOn reads a file on top of c.
func parseOn(c config, b []byte) (config, error) {
	var d Durations
	err := Decode(b, &struct {
		Name   *string   `json:"name"`
		ID     *uint32   `json:"id"`
		Bare   *bool     `json:"bare"`
		Rate   *float64  `json:"rate"`
		Names  *[]string `json:"names"`
		Often  *string   `json:"often"`
		Seldom *string   `json:"seldom"`
	}{&c.Name, &c.ID, &c.Bare, &c.Rate, &c.Names, d.Text("often", &c.Often), d.Text("seldom", &c.Seldom)}, d)
	return c, err
}

func TestDecode_OnTopOfDefaults(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		change     func(*config)
	}{
		{"empty", "", func(*config) {}},
		{"comment", "# nothing\n", func(*config) {}},
		{"all", "name: a\nid: 9\nbare: true\nrate: 2\nnames: [b, c]\noften: 5m\nseldom: 24h\n", func(c *config) {
			*c = config{Name: "a", ID: 9, Bare: true, Rate: 2, Names: []string{"b", "c"}, Often: 5 * time.Minute, Seldom: 24 * time.Hour}
		}},
		{"zero-values", "name: ''\nid: 0\nrate: 0\noften: 0s\n", func(c *config) { c.Name, c.ID, c.Rate, c.Often = "", 0, 0, 0 }},
		{"nulls", "name:\nid: null\nrate: ~\nnames:\noften:\n", func(*config) {}},
		{"number-as-name", "name: 12\n", func(c *config) { c.Name = "12" }},
		{"negative-duration", "seldom: -90s\n", func(c *config) { c.Seldom = -90 * time.Second }},
		{"json", `{"name": "a", "often": "1h30m"}`, func(c *config) { c.Name, c.Often = "a", 90*time.Minute }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := defaults()
			tt.change(&want)
			got, err := parse([]byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecode_SaysWhatIsWrong(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"unknown", "nmae: a\n", `unknown field "nmae"`},
		{"double", "name: a\nname: b\n", `key "name" already set in map`},
		{"type", "id: many\n", "cannot unmarshal string into Go struct field .id of type uint32"},
		{"list", "often: [5m]\n", "cannot unmarshal array into Go struct field .often of type string"},
		{"not-yaml", "a: b: c\n", "mapping values are not allowed in this context"},
		{"not-a-mapping", "- a\n", "cannot unmarshal array into Go value"},
		{"word", "often: soon\n", `often: "soon" is not a duration; write it as 90s or 5m`},
		{"no-unit", "seldom: 5\n", `seldom: "5" is not a duration; write it as 90s or 5m`},
		{"empty-text", "often: ''\n", `often: "" is not a duration; write it as 90s or 5m`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parse([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}

// TestDecode_FirstWrongDurationOfMany asks often enough to see an order that is not fixed.
func TestDecode_FirstWrongDurationOfMany(t *testing.T) {
	var d Durations
	texts := map[string]*string{}
	for i := range 20 {
		key := fmt.Sprintf("key-%d", i)
		texts[key] = d.Text(key, new(time.Duration))
	}
	for _, text := range texts {
		*text = "later"
	}
	for range 20 {
		err := Decode(nil, &struct{}{}, d)
		if want := `key-0: "later" is not a duration; write it as 90s or 5m`; err == nil || err.Error() != want {
			t.Fatalf("got %v, want %q", err, want)
		}
	}
}

func TestRead_NamesTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "role.yaml")
	if err := os.WriteFile(file, []byte("name: a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Read("role configuration", file, parse)
	if err != nil || c.Name != "a" {
		t.Errorf("got %+v and %v, want the name a", c, err)
	}

	bad := errors.New("is bad")
	c, err = Read("role configuration", file, func([]byte) (config, error) { return config{Name: "b"}, bad })
	if want := "role configuration " + file + ": is bad"; err == nil || err.Error() != want || !errors.Is(err, bad) {
		t.Errorf("got %v, want %q", err, want)
	}
	if c.Name != "b" {
		t.Errorf("got %+v, want what parse returned", c)
	}

	c, err = Read("role configuration", file+".not", parse)
	if err == nil || !strings.HasPrefix(err.Error(), "role configuration: open "+file+".not: ") || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if diff := cmp.Diff(config{}, c); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// FuzzDecode reads whatever stands in a file. What was understood changes nothing when it is read on
// top of itself: keys that are there say the same, the others keep what was, to the nanosecond.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"name: a\nid: 9\nbare: true\nrate: 2\nnames: [b, c]\noften: 5m\nseldom: 24h\n", "name: [1", "often: 5\nseldom: x",
		"a: &a [*a]", "name:\noften:\n", "? {a: b}\n: c", "name: !!binary YQ==", "Name: a\nname: b",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := parse(b)
		if err != nil {
			return
		}
		second, err := parseOn(first, b)
		if err != nil {
			t.Fatalf("understood once, then not: %v", err)
		}
		if diff := cmp.Diff(first, second); diff != "" {
			t.Errorf("(-first +second):\n%s", diff)
		}
	})
}
