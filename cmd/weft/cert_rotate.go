// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/apiserver/trust"
)

// renewedView is what became of a certificate, as json prints it.
type renewedView struct {
	File    string    `json:"file"`
	Name    string    `json:"name"`
	Renewed bool      `json:"renewed"`
	Why     string    `json:"why,omitempty"`
	Until   time.Time `json:"until"`
}

func certRenew(a *app) *cobra.Command {
	var dir certFlags
	var o trust.RenewOptions
	cmd := &cobra.Command{
		Use: "renew [FILE...]", Short: "Renew what has less than a third of its life left; to be run by a timer",
		Long: "Renew certificates that were signed here and have less than a third of their life left, or that an old authority\n" +
			"has signed; without FILE all in issued, below --dir. The key stays, and the file changes in one step: whoever reads it\n" +
			"needs no restart.",
		Example: "  weft cert renew\n  weft cert renew /etc/weft/east-1.crt --now",
		RunE: func(_ *cobra.Command, args []string) error {
			d, err := dir.open()
			if err != nil {
				return err
			}
			var all []trust.Renewed
			var errs []error
			for _, file := range args {
				r, err := d.Renew(file, o)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				all = append(all, r)
			}
			if len(args) == 0 {
				all, errs = d.RenewAll(o)
			}
			var views []renewedView
			for _, r := range all {
				views = append(views, renewedView{r.File, r.Name, r.Why != "", r.Why, r.Until.UTC()})
			}
			return errors.Join(printList(a, views, []column[renewedView]{
				{"NAME", false, func(v renewedView) string { return v.Name }},
				{"UNTIL", false, func(v renewedView) string { return v.Until.Format(time.DateOnly) }},
				{"RENEWED", false, func(v renewedView) string { return orDash(v.Why) }},
				{"FILE", false, func(v renewedView) string { return v.File }},
			}), errors.Join(errs...))
		},
	}
	dir.add(cmd.Flags())
	cmd.Flags().BoolVar(&o.Now, "now", false, "also if it is not due")
	cmd.Flags().BoolVar(&o.NewKey, "new-key", false, "with a new key, beside it: two files change, one after the other")
	cmd.Flags().DurationVar(&o.Life, "life", 0, "how long it is good (default: as before)")
	return cmd
}

func certRotate(a *app) *cobra.Command {
	var keepRoot, anyway bool
	step := func(use, short, then string, do func(*trust.Dir) error) *cobra.Command {
		var dir certFlags
		cmd := &cobra.Command{
			Use: use, Short: short, Args: atMost(0),
			RunE: func(*cobra.Command, []string) error {
				d, err := dir.open()
				if err != nil {
					return err
				}
				if err := do(d); err != nil {
					return err
				}
				v := map[string]any{"schema": schemaName, "rotation": d.Rotation().String(), "ca": d.CAFile(), "storeCA": d.StoreCAFile()}
				return printOne(a, v, func(w io.Writer) { fmt.Fprintf(w, then, d.CAFile(), d.StoreCAFile()) })
			},
		}
		dir.add(cmd.Flags())
		if use == "begin" {
			dir.addRootKey(cmd.Flags())
		}
		return cmd
	}
	begin := step("begin", "Make the next authorities and let them be trusted beside the current ones",
		"Both generations are in these files now:\n  %s  to all clients of the cluster, its API servers, and other clusters\n"+
			"  %s  to its etcd; etcd reads it at its start only: restart one member after another\n"+
			"When they are everywhere: weft cert rotate switch\n",
		func(d *trust.Dir) error { return d.Begin(keepRoot) })
	begin.Flags().BoolVar(&keepRoot, "keep-root", false, "change the cluster CA and the peer CA only; the root signs them")
	finish := step("finish", "Forget the old authorities",
		"Bring %s and %s to where they are read, as before: from then on nothing is good that the old authorities signed.\n",
		func(d *trust.Dir) error {
			var old *trust.OldError
			err := d.Finish(anyway)
			if errors.As(err, &old) {
				return hint(err, "weft cert renew, and bring the certificates to where they are read; or --anyway")
			}
			return err
		})
	finish.Flags().BoolVar(&anyway, "anyway", false, "also while certificates in issued are signed by them")
	cmd := group("rotate", "Change the authorities in steps, so that no connection is refused",
		begin,
		step("switch", "Let the next authorities sign; everybody trusts them by now",
			"The next authorities sign from now on. Now: weft cert renew, and bring the certificates to where they are read, and the\n"+
				"peer CA to the API servers. Other clusters' certificates are renewed by them. Then: weft cert rotate finish\n"+
				"(what is trusted stays as it is: %s, %s)\n",
			(*trust.Dir).Switch),
		finish,
		step("abort", "Forget the next authorities before they sign",
			"Bring %s and %s to where they are read, as before.\n", (*trust.Dir).Abort))
	cmd.Long = "Change the authorities: begin, switch, finish, and between two steps bring the files that are printed to where\n" +
		"they are read. Old and new are trusted at the same time, so that no connection is refused meanwhile. Each step may be\n" +
		"repeated. With 'begin --keep-root' nobody but the etcd and the API servers needs new files."
	return cmd
}
