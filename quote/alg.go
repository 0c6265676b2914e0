package quote

import (
	"crypto"
	_ "crypto/sha1" // linked for Hash: event logs and banks may name these
	_ "crypto/sha256"
	_ "crypto/sha512"
	"fmt"
)

// Alg is a hash algorithm as TPMs number it (Part 2, section 6.3, TPM_ALG_ID).
type Alg uint16

// The hash algorithms that PCR banks and event logs may name
// (TCG Algorithm Registry, revision 1.34, table 3).
const (
	SHA1    Alg = 0x0004
	SHA256  Alg = 0x000B
	SHA384  Alg = 0x000C
	SHA512  Alg = 0x000D
	SM3     Alg = 0x0012
	SHA3256 Alg = 0x0027
	SHA3384 Alg = 0x0028
	SHA3512 Alg = 0x0029
)

// algs lists what this package knows of each algorithm. SM3 has no
// implementation in the standard library: its digests are carried and never
// computed.
func (a Alg) info() (name string, size int, hash crypto.Hash) {
	switch a {
	case SHA1:
		return "sha1", 20, crypto.SHA1
	case SHA256:
		return "sha256", 32, crypto.SHA256
	case SHA384:
		return "sha384", 48, crypto.SHA384
	case SHA512:
		return "sha512", 64, crypto.SHA512
	case SM3:
		return "sm3_256", 32, 0
	case SHA3256:
		return "sha3_256", 32, 0
	case SHA3384:
		return "sha3_384", 48, 0
	case SHA3512:
		return "sha3_512", 64, 0
	}
	return "", 0, 0
}

// String returns the bank's usual name ("sha256"), or "alg(0x....)" for an
// algorithm this package does not know.
func (a Alg) String() string {
	if name, _, _ := a.info(); name != "" {
		return name
	}
	return fmt.Sprintf("alg(0x%04x)", uint16(a))
}

// Size returns the digest's length in bytes, 0 for an unknown algorithm.
func (a Alg) Size() int {
	_, size, _ := a.info()
	return size
}

// Hash returns the algorithm's implementation, and false when there is none
// here (SM3, SHA-3, unknown algorithms).
func (a Alg) Hash() (crypto.Hash, bool) {
	_, _, h := a.info()
	return h, h != 0
}

// ParseAlg returns the algorithm of a bank's name, as String prints it.
func ParseAlg(name string) (Alg, error) {
	for _, a := range []Alg{SHA1, SHA256, SHA384, SHA512, SM3, SHA3256, SHA3384, SHA3512} {
		if a.String() == name {
			return a, nil
		}
	}
	return 0, fmt.Errorf("unknown hash algorithm %q: want sha1, sha256, sha384 or sha512", name)
}

// MarshalText and UnmarshalText carry the name in JSON and YAML.
func (a Alg) MarshalText() ([]byte, error) {
	if a.Size() == 0 {
		return nil, fmt.Errorf("hash algorithm 0x%04x has no name", uint16(a))
	}
	return []byte(a.String()), nil
}

// UnmarshalText accepts what MarshalText writes.
func (a *Alg) UnmarshalText(b []byte) error {
	p, err := ParseAlg(string(b))
	if err != nil {
		return err
	}
	*a = p
	return nil
}
