// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/agent/api"
	"github.com/weft-net/weft/apiserver"
	"github.com/weft-net/weft/apiserver/trust"
)

// doctorFlags say what the patient is to be judged by.
type doctorFlags struct {
	certFlags
	trust.Files
	connect bool
}

func certDoctor(a *app) *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use: "doctor [DIR|FILE|HOST:PORT]...", Short: "Say in words what is wrong with certificates; the exit code is their health",
		Long: "Say in words what is wrong with certificates: expired, a wrong clock, the CA of another cluster or of before a\n" +
			"rotation, an intermediate that is missing, a name that is not in it, a key of another one. An argument is a directory\n" +
			"of authorities or of etcd client files, an etcd client file, a file of settings of an API server, a certificate, or\n" +
			"HOST:PORT: there it goes as far as TLS, and says what the server thinks of our certificate. Without arguments it is\n" +
			"--dir.",
		Example: "  weft cert doctor\n  weft cert doctor /etc/weft/mesh --connect\n" +
			"  weft cert doctor east-1.crt --ca ca.crt --host 192.0.2.10\n  weft cert doctor 192.0.2.10:32379 --ca ca.crt --cert remote-west.crt",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{f.dir}
			}
			found := []trust.Finding{}
			for _, what := range args {
				more, err := f.examine(cmd.Context(), what)
				if err != nil {
					return err
				}
				found = append(found, more...)
			}
			healthy := !slices.ContainsFunc(found, func(f trust.Finding) bool { return f.Level == trust.Bad })
			v := map[string]any{"schema": schemaName, "healthy": healthy, "findings": found}
			if err := printOne(a, v, func(w io.Writer) { printFindings(a, w, found) }); err != nil {
				return err
			}
			if !healthy {
				return errUnhealthy
			}
			return nil
		},
	}
	f.certFlags.add(cmd.Flags())
	cmd.Flags().StringVar(&f.CA, "ca", "", "file of those who are trusted")
	cmd.Flags().StringVar(&f.Cert, "cert", "", "certificate that is shown to HOST:PORT")
	cmd.Flags().StringVar(&f.Key, "key", "", "its key (default: beside it, .key)")
	cmd.Flags().StringVar(&f.Host, "host", "", "name or address that a server's certificate must have")
	cmd.Flags().BoolVar(&f.connect, "connect", false, "go to the endpoints of client files too")
	return cmd
}

// examine judges one argument by what it is.
func (f *doctorFlags) examine(ctx context.Context, what string) ([]trust.Finding, error) {
	info, err := os.Stat(what)
	if err != nil {
		if _, _, bad := net.SplitHostPort(what); bad != nil || strings.ContainsRune(what, filepath.Separator) {
			return nil, fmt.Errorf("examine certificates: %w", err)
		}
		ours := f.withKey(f.Cert)
		ours.Host, ours.OwnCA, ours.Usage = "", true, x509.ExtKeyUsageClientAuth
		found := ours.Examine()
		_, more := trust.Target{Address: what, Host: f.Host, Files: ours}.Connect(ctx)
		return append(found, more...), nil
	}
	if info.IsDir() {
		if found := trust.ExamineClientFiles(ctx, what, f.connect); len(found) > 0 {
			return found, nil
		}
		d, err := (&certFlags{dir: what}).open()
		if err != nil {
			return nil, err
		}
		return d.Examine(), nil
	}
	text, err := os.ReadFile(what)
	switch {
	case err != nil:
		return nil, fmt.Errorf("examine certificates: %w", err)
	case bytes.Contains(text, []byte("-----BEGIN ")):
		return f.examineFile(what), nil
	case bytes.Contains(text, []byte("endpoints:")):
		return trust.ExamineClientFile(ctx, what, f.connect), nil
	}
	cfg, err := apiserver.ReadConfig(what)
	if err != nil {
		return nil, err
	}
	own := trust.Files{
		CA: cfg.CAFile, Cert: cfg.CertFile, Key: cfg.KeyFile, OwnCA: true,
		Usage: x509.ExtKeyUsageServerAuth, Host: trust.MeshName(cfg.Cluster),
	}
	return append(own.Examine(), trust.ExamineClientFile(ctx, cfg.Etcd, f.connect)...), nil
}

// examineFile judges a file of certificates by what the first one is for.
func (f *doctorFlags) examineFile(file string) []trust.Finding {
	certs, err := trust.ReadCertificates(file)
	if err == nil && certs[0].IsCA && f.CA == "" {
		return trust.Files{CA: file}.Examine()
	}
	of := f.withKey(file)
	of.Usage = x509.ExtKeyUsageClientAuth
	if err == nil && slices.Contains(certs[0].ExtKeyUsage, x509.ExtKeyUsageServerAuth) || f.Host != "" {
		of.Usage = x509.ExtKeyUsageServerAuth
	}
	return of.Examine()
}

// withKey is the flags' files for a certificate; its key is beside it, if nobody said where.
func (f *doctorFlags) withKey(cert string) trust.Files {
	of := f.Files
	of.Cert = cert
	if of.Key == "" && cert != "" {
		if _, err := os.Stat(trust.KeyFileOf(cert)); err == nil || cert == f.Files.Cert {
			of.Key = trust.KeyFileOf(cert)
		}
	}
	return of
}

func printFindings(a *app, w io.Writer, found []trust.Finding) {
	for _, f := range found {
		health := map[trust.Level]api.Health{
			trust.Good: api.Health_HEALTH_OK, trust.Warning: api.Health_HEALTH_WARNING, trust.Bad: api.Health_HEALTH_FAILED,
		}[f.Level]
		fmt.Fprintf(w, "%s %s: %s\n", mark(health, a.colored(w)), f.Subject, f.Text)
		if f.Remedy != "" {
			fmt.Fprintf(w, "    -> %s\n", f.Remedy)
		}
	}
	if len(found) == 0 {
		fmt.Fprintln(w, "nothing to examine")
	}
}
