package lifecycle

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// ImportPCRRead writes a policy for one layer from what tpm2_pcrread prints (YAML:
// banks, PCRs, values). Nobody signed those values: the policy is as good as the
// way on which they came. It pins what Learn pins, and has no components, so
// nothing explains a difference from it.
func ImportPCRRead(data []byte, bank quote.Alg, layer verify.Layer, name string) ([]byte, error) {
	pcrs, err := readPCRRead(data, bank)
	if err != nil {
		return nil, fmt.Errorf("import from tpm2_pcrread: %w", err)
	}
	w := NewLearner(LearnOptions{Name: name})
	w.layers[layer].add(0, &verify.Claims{Bank: bank, PCRs: pcrs})
	w.line(0, "# Imported from tpm2_pcrread: values that nobody signed. Review it, and better learn from evidence.")
	w.head()
	if err := w.section(layer); err != nil {
		return nil, err
	}
	out := []byte(w.b.String())
	if _, err := policy.Parse(out); err != nil {
		return nil, fmt.Errorf("import from tpm2_pcrread: %w", err)
	}
	return out, nil
}

func readPCRRead(data []byte, bank quote.Alg) (map[int]quote.Hex, error) {
	const most = 1 << 16
	if len(data) > most {
		return nil, fmt.Errorf("%d bytes, at most %d", len(data), most)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	if doc.Kind != yaml.DocumentNode || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("want a mapping of banks, such as sha256, to PCRs")
	}
	root := doc.Content[0]
	values := nodeMember(root, bank.String())
	if values == nil {
		var banks []string
		for i := 0; i < len(root.Content); i += 2 {
			banks = append(banks, wording.Name(root.Content[i].Value))
		}
		return nil, fmt.Errorf("no bank %s; there is %s", bank, wording.Either(banks))
	}
	if values.Kind != yaml.MappingNode || len(values.Content) == 0 {
		return nil, fmt.Errorf("line %d: bank %s holds no PCRs", values.Line, bank)
	}
	pcrs := make(map[int]quote.Hex)
	for i := 0; i+1 < len(values.Content); i += 2 {
		key, value := values.Content[i], values.Content[i+1]
		n, err := strconv.Atoi(strings.TrimSpace(key.Value))
		if err != nil || n < 0 || n >= quote.NumPCRs {
			return nil, fmt.Errorf("line %d: %q is not a PCR", key.Line, wording.Name(key.Value))
		}
		var digest quote.Hex
		digits, hex := strings.CutPrefix(strings.ToLower(value.Value), "0x")
		if err := digest.UnmarshalText([]byte(digits)); err != nil || !hex || len(digest) != bank.Size() {
			return nil, fmt.Errorf("line %d: PCR %d: %q: want 0x and %d hexadecimal digits", value.Line, n, wording.Name(value.Value), 2*bank.Size())
		}
		if pcrs[n] != nil {
			return nil, fmt.Errorf("line %d: PCR %d again", key.Line, n)
		}
		pcrs[n] = digest
	}
	return pcrs, nil
}
