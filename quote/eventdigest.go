package quote

import (
	"bytes"
	"fmt"

	"github.com/deepattest/deepattest/quote/internal/wire"
)

// ones is what PCRs 17 to 22 hold after TPM2_Startup.
var ones = wire.Ones()

// extender computes the digests of a bank and looks for what they are of.
type extender struct {
	wire.Extender
	alg Alg
}

func newExtender(alg Alg) (extender, error) {
	if _, ok := alg.Hash(); !ok {
		return extender{}, fmt.Errorf("no implementation of %s: use a sha256 or sha384 bank", alg)
	}
	return extender{wire.Extender{Size: alg.Size()}, alg}, nil
}

// digestOfData is what an event holds whose digest is that of data.
func digestOfData(alg Alg, data []byte) (Hex, error) {
	x, err := newExtender(alg)
	if err != nil {
		return nil, err
	}
	var d [wire.MaxDigest]byte
	x.Sum(&d, data)
	return bytes.Clone(d[:x.Size]), nil
}
