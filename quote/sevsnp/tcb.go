package sevsnp

import (
	"encoding/binary"
	"fmt"
)

// CPU is what CPUID says of the processor (versions 3 and up): family and model
// with their extensions added.
type CPU struct{ Family, Model, Stepping uint8 }

func (c CPU) String() string {
	return fmt.Sprintf("family 0x%02x model 0x%02x stepping %d", c.Family, c.Model, c.Stepping)
}

// Generation is a line of processors that has certificates of its own.
type Generation string

// The generations, as AMD's certificates name them. Bergamo and Siena are of the
// Genoa line.
const (
	Milan Generation = "Milan"
	Genoa Generation = "Genoa"
	Turin Generation = "Turin"
)

// Generation returns the line of a processor. A report of version 2 has no CPU.
func (c CPU) Generation() (Generation, error) {
	switch {
	case c == CPU{}:
		return "", fmt.Errorf("the report names no processor")
	case c.Family == 0x19 && c.Model <= 0x0F:
		return Milan, nil
	case c.Family == 0x19 && (c.Model>>4 == 0x1 || c.Model>>4 == 0xA):
		return Genoa, nil
	case c.Family == 0x1A && c.Model <= 0x11:
		return Turin, nil
	}
	return "", fmt.Errorf("processor of %s: not a generation that is known here (Milan, Genoa, Turin)", c)
}

// TCB is a TCB_VERSION (ABI, table TCB_VERSION): security version numbers of
// firmware, whose places depend on the generation.
type TCB uint64

// Parts are the security version numbers in a TCB.
type Parts struct {
	FMC        uint8 `json:"fmc,omitempty"` // Turin only
	BootLoader uint8 `json:"bootLoader"`
	TEE        uint8 `json:"tee"`
	SNP        uint8 `json:"snp"`
	Microcode  uint8 `json:"microcode"`
}

// Split takes a TCB apart. A value in a part that the generation does not have is
// an error.
func (t TCB) Split(g Generation) (Parts, error) {
	b := binary.LittleEndian.AppendUint64(nil, uint64(t))
	var p Parts
	switch g {
	case Milan, Genoa:
		p = Parts{BootLoader: b[0], TEE: b[1], SNP: b[6], Microcode: b[7]}
	case Turin:
		p = Parts{FMC: b[0], BootLoader: b[1], TEE: b[2], SNP: b[3], Microcode: b[7]}
	default:
		return Parts{}, fmt.Errorf("TCB version 0x%016x: layout of generation %.20q is not known", uint64(t), string(g))
	}
	if p.TCB(g) != t {
		return Parts{}, fmt.Errorf("TCB version 0x%016x: a reserved part of %s's layout is not zero", uint64(t), g)
	}
	return p, nil
}

// TCB puts the parts together, the opposite of Split.
func (p Parts) TCB(g Generation) TCB {
	b := [8]byte{0: p.BootLoader, 1: p.TEE, 6: p.SNP, 7: p.Microcode}
	if g == Turin {
		b = [8]byte{0: p.FMC, 1: p.BootLoader, 2: p.TEE, 3: p.SNP, 7: p.Microcode}
	}
	return TCB(binary.LittleEndian.Uint64(b[:]))
}

// Least tells whether each part is at least that of a minimum. Parts are compared
// one by one: a newer microcode does not make up for an older boot loader.
func (p Parts) Least(min Parts) bool {
	return p.FMC >= min.FMC && p.BootLoader >= min.BootLoader && p.TEE >= min.TEE && p.SNP >= min.SNP && p.Microcode >= min.Microcode
}

func (p Parts) String() string {
	s := fmt.Sprintf("boot loader %d, TEE %d, SNP %d, microcode %d", p.BootLoader, p.TEE, p.SNP, p.Microcode)
	if p.FMC != 0 {
		s = fmt.Sprintf("FMC %d, ", p.FMC) + s
	}
	return s
}
