// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weft-net/weft/apiserver/trust"
)

func certCommand(a *app) *cobra.Command {
	return group("cert", "The cluster's certificates", certInit(a), certServer(a), certClient(a), certRequest(a), certRenew(a), certRotate(a), certShow(a), certDoctor(a))
}

// certFlags name a directory of authorities.
type certFlags struct{ dir, rootKey string }

func (f *certFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.dir, "dir", "/etc/weft/ca", "directory of the cluster's authorities")
}

func (f *certFlags) addRootKey(flags *pflag.FlagSet) {
	flags.StringVar(&f.rootKey, "root-key", "", "file of the root's key, which is kept elsewhere")
}

func (f *certFlags) open() (*trust.Dir, error) {
	d, err := trust.Open(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint(err, "weft cert init --cluster NAME --dir %s, or name the directory with --dir", f.dir)
	}
	if err != nil {
		return nil, err
	}
	d.RootKey = f.rootKey
	return d, nil
}

// authorityView is an authority as json prints it.
type authorityView struct {
	Role string `json:"role"`
	File string `json:"file"`
	trust.Summary
}

func certInit(a *app) *cobra.Command {
	var dir certFlags
	var cluster, rootCert string
	cmd := &cobra.Command{
		Use: "init --cluster NAME", Short: "Make the cluster's authorities: a root, and two below it", Args: atMost(0),
		Long: "Make the cluster's authorities. The root signs the other two and is to be kept offline. The cluster CA signs the\n" +
			"cluster's own servers and users. The peer CA signs the readers of other clusters; it goes to the API servers.\n" +
			"With --root-cert and --root-key a root that exists signs them. What is there is never replaced.",
		Example: "  weft cert init --cluster east --dir /etc/weft/ca",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cluster == "" {
				return usage(cmd, errors.New("--cluster is missing"))
			}
			if (rootCert == "") != (dir.rootKey == "") {
				return usage(cmd, errors.New("--root-cert and --root-key belong together"))
			}
			var root *trust.Authority
			var err error
			if rootCert != "" {
				if root, err = trust.ReadAuthority(rootCert, dir.rootKey); err != nil {
					return err
				}
			}
			d, err := trust.Create(dir.dir, cluster, root)
			if err != nil {
				return err
			}
			return printAuthorities(a, d, cluster)
		},
	}
	dir.add(cmd.Flags())
	dir.addRootKey(cmd.Flags())
	cmd.Flags().StringVar(&cluster, "cluster", a.getenv("WEFT_CLUSTER", ""), "name of the cluster (WEFT_CLUSTER)")
	cmd.Flags().StringVar(&rootCert, "root-cert", "", "certificate of a root that signs, instead of a new one")
	return cmd
}

func printAuthorities(a *app, d *trust.Dir, cluster string) error {
	views := []authorityView{}
	for _, role := range []trust.Role{trust.RoleRoot, trust.RoleCluster, trust.RolePeer} {
		file, _ := d.Files(role)
		certs, err := trust.ReadCertificates(file)
		if err != nil {
			return err
		}
		views = append(views, authorityView{role.String(), file, trust.Summarize(certs[0])})
	}
	_, rootKey := d.Files(trust.RoleRoot)
	_, err := os.Stat(rootKey)
	v := map[string]any{"schema": schemaName, "cluster": cluster, "ca": d.CAFile(), "storeCA": d.StoreCAFile(), "authorities": views}
	return printOne(a, v, func(w io.Writer) {
		for _, v := range views {
			fmt.Fprintf(w, "%-10s  %s  until %s  %.8s\n", v.Role, v.File, v.Until.Format(time.DateOnly), v.Fingerprint)
		}
		fmt.Fprintf(w, "clients of the cluster and its API servers trust %s\nits etcd trusts %s\n", d.CAFile(), d.StoreCAFile())
		if err == nil {
			fmt.Fprintf(w, "! take %s to a place without a network: only 'weft cert rotate' needs it\n", rootKey)
		}
	})
}

// issueFlags are those of commands that sign something new.
type issueFlags struct {
	certFlags
	out, csr string
	life     time.Duration
}

func (f *issueFlags) add(flags *pflag.FlagSet, life string) {
	f.certFlags.add(flags)
	flags.StringVar(&f.out, "out", "", "directory for NAME.crt and NAME.key (default: issued, below --dir)")
	flags.StringVar(&f.csr, "csr", "", "request to sign, of 'weft cert request': the key stays where it was made")
	flags.DurationVar(&f.life, "life", 0, "how long it is good (default "+life+")")
}

// issuedView is a certificate that was signed, as json prints it.
type issuedView struct {
	Schema string `json:"schema"`
	Cert   string `json:"cert"`
	Key    string `json:"key,omitempty"` // empty: it is where the request was made
	trust.Summary
}

// issue signs what a role signs, for a new key or for a request, and prints where it is.
func (f *issueFlags) issue(a *app, role trust.Role, name string, sign func(*trust.Authority, crypto.PublicKey) (trust.Chain, error)) error {
	d, err := f.open()
	if err != nil {
		return err
	}
	authority, err := d.Authority(role)
	if err != nil {
		return err
	}
	out := f.out
	if out == "" {
		out = d.Issued()
	}
	v := issuedView{Schema: schemaName}
	var chain trust.Chain
	by := func(pub crypto.PublicKey) (trust.Chain, error) { return sign(authority, pub) }
	if f.csr != "" {
		v.Cert, chain, err = trust.IssueRequested(out, name, f.csr, by)
	} else {
		v.Cert, v.Key, chain, err = trust.Issue(out, name, by)
	}
	if err != nil {
		return err
	}
	v.Summary = trust.Summarize(chain[0])
	return printOne(a, v, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s %q, good until %s\n", v.Cert, v.Kind, v.Name, v.Until.Format(time.DateOnly))
		if v.Key != "" {
			fmt.Fprintf(w, "%s: its key, for nobody else's eyes\n", v.Key)
		}
		if role == trust.RolePeer {
			fmt.Fprintf(w, "the other cluster verifies our servers with %s\n", d.CAFile())
		}
	})
}
