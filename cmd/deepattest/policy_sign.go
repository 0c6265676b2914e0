package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/signing"
	"github.com/deepattest/deepattest/policy"
)

// signatureFile is where the signature of a policy is.
func signatureFile(policy string) string { return policy + ".sig" }

// maxKey bounds a file of keys.
const maxKey = 64 << 10

func requireSignedFlag() cli.Flag {
	return &cli.StringFlag{Name: "require-signed", EnvVars: env("require-signed"), Usage: "PEM `FILE` of public keys: the policy must be signed by one of them, in POLICY.sig"}
}

func (p *program) policySignCommand() *cli.Command {
	return &cli.Command{
		Name:      "sign",
		Usage:     "sign a policy, into POLICY.sig beside it",
		ArgsUsage: "POLICY",
		Description: "The signature is a DSSE envelope that holds the policy as it is now; a change of one byte needs a new one. It does\n" +
			"not expire: the policy does, at its metadata.expires. Keys are Ed25519 or ECDSA P-256:\n\n" +
			"   openssl genpkey -algorithm ed25519 -out policy.key\n" +
			"   openssl pkey -in policy.key -pubout -out policy.pub\n" +
			"   deepattest policy sign policy.yaml --key policy.key\n" +
			"   deepattest verify evidence.json --policy policy.yaml --require-signed policy.pub ...",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "key", Usage: "PEM `FILE` of the private key (PKCS #8)"},
			&cli.StringFlag{Name: "output", Usage: "`FILE` for the signature; default: POLICY.sig, where it is looked for"},
		},
		Action: p.policySign,
	}
}

func (p *program) policySign(c *cli.Context) error {
	path, err := oneArg(c, "a policy file")
	if err != nil {
		return err
	}
	data, rules, err := readPolicyBytes(path)
	if err != nil {
		return err
	}
	if err := p.expired(path, rules); err != nil {
		return err
	}
	if c.String("key") == "" {
		return usagef("policy sign needs --key, the private key: see `deepattest policy sign --help`")
	}
	pem, err := readFile(c.String("key"), maxKey)
	if err != nil {
		return usagef("--key: %w", err)
	}
	key, err := signing.ParsePrivateKey(pem)
	if err != nil {
		return usagef("--key %s: %w", c.String("key"), err)
	}
	envelope, err := signing.Sign(c.Context, signing.PolicyType, data, key, rand.Reader)
	if err != nil {
		return err
	}
	return p.writeOutput(firstOf(c.String("output"), signatureFile(path)), envelope)
}

// expired refuses a policy after its time: a signature of it would say that
// somebody has looked at it.
func (p *program) expired(path string, rules *policy.Policy) error {
	if rules.Expires.IsZero() || p.now().Before(rules.Expires) {
		return nil
	}
	return usagef("policy %s: expired at %s: review it and set a new metadata.expires", path, rules.Expires.Format("2006-01-02T15:04:05Z"))
}

func (p *program) policyVerifyCommand() *cli.Command {
	return &cli.Command{
		Name:        "verify",
		Usage:       "check the signature of a policy, and that it has not expired",
		ArgsUsage:   "POLICY",
		Description: "Prints who signed it. attest and verify do the same with --require-signed.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "key", Usage: "PEM `FILE` of the public keys that may have signed"},
		},
		Action: p.policyVerify,
	}
}

func (p *program) policyVerify(c *cli.Context) error {
	path, err := oneArg(c, "a policy file")
	if err != nil {
		return err
	}
	data, rules, err := readPolicyBytes(path)
	if err != nil {
		return err
	}
	if c.String("key") == "" {
		return usagef("policy verify needs --key, the public keys that may have signed")
	}
	signer, err := checkSignature(c.Context, path, data, c.String("key"))
	if err != nil {
		return err
	}
	if err := p.expired(path, rules); err != nil {
		return err
	}
	return p.writeOutput("-", fmt.Appendf(nil, "policy %q (sha256:%s) is signed by key %s\n", rules.Name, rules.Digest, signer))
}

// checkSignature checks POLICY.sig against a policy's bytes and returns the key
// that signed.
func checkSignature(ctx context.Context, path string, data []byte, keyFile string) (string, error) {
	pem, err := readFile(keyFile, maxKey)
	if err != nil {
		return "", usagef("public key: %w", err)
	}
	keys, err := signing.ParsePublicKeys(pem)
	if err != nil {
		return "", usagef("public key %s: %w", keyFile, err)
	}
	name := signatureFile(path)
	envelope, err := readFile(name, signing.MaxEnvelope)
	if errors.Is(err, os.ErrNotExist) {
		return "", usagef("policy %s is not signed: there is no %s: the tenant signs it with `deepattest policy sign`", path, name)
	}
	if err != nil {
		return "", usagef("signature of policy %s: %w", path, err)
	}
	signer, err := signing.Verify(ctx, signing.PolicyType, data, envelope, keys)
	switch {
	case errors.Is(err, signing.ErrChanged):
		return "", usagef("policy %s was changed after %s was made: the tenant looks at the change with `deepattest policy diff` and signs again", path, name)
	case errors.Is(err, signing.ErrOtherKey):
		return "", usagef("policy %s: %s: %w; demanded is a key of %s", path, name, err, keyFile)
	case err != nil:
		return "", usagef("policy %s: %s: %w", path, name, err)
	}
	return signer, nil
}
