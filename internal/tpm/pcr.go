package tpm

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/quote"
)

// Banks returns the PCR banks that have PCRs allocated, in the TPM's order
// (Part 2, section 6.12, TPM_CAP_PCRS). One command.
func (t *TPM) Banks(ctx context.Context) ([]quote.Alg, error) {
	var banks []quote.Alg
	err := t.do(ctx, func(x *tx) error {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: 1}.Execute(x)
		if err != nil {
			return x.fail("read PCR banks", err)
		}
		list, err := rsp.CapabilityData.Data.AssignedPCR()
		if err != nil {
			return x.fail("read PCR banks", err)
		}
		for _, bank := range fromSelection(list) {
			if len(bank.PCRs) > 0 {
				banks = append(banks, bank.Alg)
			}
		}
		return nil
	})
	return banks, err
}

// maxReadings bounds the attempts to read a set of PCRs that keeps changing.
const maxReadings = 5

// errPCRsChanged reports PCRs that were extended between two parts of a reading.
var errPCRsChanged = errors.New("PCRs were extended while they were read")

// ReadPCRs returns the values of all selected PCRs as of one moment. TPM2_PCR_Read
// returns at most eight values (Part 2, section 10.9.6, TPML_DIGEST), so a
// selection of n values takes about n/8 commands. The reading starts over when
// the TPM's update counter shows that PCRs were extended meanwhile; PCRs that do
// not count (16 and 21 to 23 of PC Client TPMs) may change unseen.
func (t *TPM) ReadPCRs(ctx context.Context, sel quote.Selection) (quote.PCRs, error) {
	if err := checkSelection(sel); err != nil {
		return nil, err
	}
	var values quote.PCRs
	err := t.do(ctx, func(x *tx) error {
		for range maxReadings {
			var err error
			if values, err = x.readPCRs(sel); err != errPCRsChanged {
				return err
			}
		}
		return x.fail(fmt.Sprintf("read PCRs %s %d times", sel, maxReadings), errPCRsChanged)
	})
	if err != nil {
		return nil, err
	}
	return values, nil
}

func (x *tx) readPCRs(sel quote.Selection) (quote.PCRs, error) {
	values := make(quote.PCRs)
	left := sel
	for first, counter := true, uint32(0); !left.Empty(); first = false {
		rsp, err := tpm2.PCRRead{PCRSelectionIn: toSelection(left)}.Execute(x)
		if err != nil {
			return nil, x.fail("read PCRs", err)
		}
		if !first && rsp.PCRUpdateCounter != counter {
			return nil, errPCRsChanged
		}
		counter = rsp.PCRUpdateCounter
		digests := rsp.PCRValues.Digests
		if len(digests) == 0 {
			return nil, x.fail("read PCRs", fmt.Errorf("no such PCRs: %s; choose a bank that the TPM has allocated", left))
		}
		for _, bank := range fromSelection(&rsp.PCRSelectionOut) {
			for _, n := range bank.PCRs {
				if len(digests) == 0 || len(digests[0].Buffer) != bank.Alg.Size() || !slices.Contains(left.Bank(bank.Alg), n) {
					return nil, x.fail("read PCRs", fmt.Errorf("%s PCR %d: answer does not match the selection", bank.Alg, n))
				}
				if values[bank.Alg] == nil {
					values[bank.Alg] = make(map[int]quote.Hex)
				}
				values[bank.Alg][n] = digests[0].Buffer
				digests = digests[1:]
			}
		}
		if len(digests) != 0 {
			return nil, x.fail("read PCRs", fmt.Errorf("%d values more than PCRs", len(digests)))
		}
		left = missing(left, values)
	}
	return values, nil
}

// missing returns what of a selection has no value yet.
func missing(sel quote.Selection, values quote.PCRs) quote.Selection {
	var left quote.Selection
	for _, bank := range sel {
		var pcrs []int
		for _, n := range bank.PCRs {
			if values[bank.Alg][n] == nil {
				pcrs = append(pcrs, n)
			}
		}
		if len(pcrs) > 0 {
			left = append(left, quote.BankSelection{Alg: bank.Alg, PCRs: pcrs})
		}
	}
	return left
}

// Extend extends one PCR in the banks given, for demonstrations and tests: real
// measurements are made by firmware and operating systems.
func (t *TPM) Extend(ctx context.Context, pcr int, digests map[quote.Alg][]byte) error {
	if pcr < 0 || pcr >= quote.NumPCRs {
		return fmt.Errorf("extend PCR %d: want 0 to %d", pcr, quote.NumPCRs-1)
	}
	var list []tpm2.TPMTHA
	for alg, digest := range digests {
		if alg.Size() == 0 || len(digest) != alg.Size() {
			return fmt.Errorf("extend PCR %d: %s digest of %d bytes, want %d", pcr, alg, len(digest), alg.Size())
		}
		list = append(list, tpm2.TPMTHA{HashAlg: tpm2.TPMIAlgHash(alg), Digest: digest})
	}
	return t.do(ctx, func(x *tx) error {
		_, err := tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
			Digests:   tpm2.TPMLDigestValues{Digests: list},
		}.Execute(x)
		if err != nil {
			return x.fail(fmt.Sprintf("extend PCR %d", pcr), err)
		}
		return nil
	})
}

// checkSelection refuses what no command can carry.
func checkSelection(sel quote.Selection) error {
	if sel.Empty() {
		return errors.New("PCR selection is empty")
	}
	if len(sel) > quote.MaxBanks {
		return fmt.Errorf("PCR selection %s: %d banks, at most %d", sel, len(sel), quote.MaxBanks)
	}
	seen := make(map[quote.Alg]map[int]bool)
	for _, bank := range sel {
		if seen[bank.Alg] != nil {
			return fmt.Errorf("PCR selection %s: bank %s twice", sel, bank.Alg)
		}
		seen[bank.Alg] = make(map[int]bool)
		for _, n := range bank.PCRs {
			if n < 0 || n >= quote.NumPCRs || seen[bank.Alg][n] {
				return fmt.Errorf("PCR selection %s: PCR %d twice or not in 0 to %d", sel, n, quote.NumPCRs-1)
			}
			seen[bank.Alg][n] = true
		}
	}
	return nil
}

// toSelection and fromSelection convert TPML_PCR_SELECTION (Part 2, section
// 10.9.7), keeping the order of banks.
func toSelection(sel quote.Selection) tpm2.TPMLPCRSelection {
	var list tpm2.TPMLPCRSelection
	for _, bank := range sel {
		bits := make([]byte, quote.NumPCRs/8)
		for _, n := range bank.PCRs {
			bits[n/8] |= 1 << (n % 8)
		}
		list.PCRSelections = append(list.PCRSelections, tpm2.TPMSPCRSelection{Hash: tpm2.TPMIAlgHash(bank.Alg), PCRSelect: bits})
	}
	return list
}

func fromSelection(list *tpm2.TPMLPCRSelection) quote.Selection {
	var sel quote.Selection
	for _, s := range list.PCRSelections {
		bank := quote.BankSelection{Alg: quote.Alg(s.Hash)}
		for i := range len(s.PCRSelect) * 8 {
			if s.PCRSelect[i/8]&(1<<(i%8)) != 0 {
				bank.PCRs = append(bank.PCRs, i)
			}
		}
		sel = append(sel, bank)
	}
	return sel
}
