package keylime

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
)

// AgentData is what Keylime's agent keeps in agent_data.bin: its attestation key,
// wrapped by the TPM that it was made in (rust-keylime, keylime/src/agent_data.rs).
type AgentData struct {
	Public  []byte // TPMT_PUBLIC
	Private []byte // content of a TPM2B_PRIVATE
}

// maxAgentData bounds such a file.
const maxAgentData = 64 << 10

// ReadAgentData reads such a file: JSON with bytes as lists of numbers.
func ReadAgentData(data []byte) (*AgentData, error) {
	if len(data) > maxAgentData {
		return nil, fmt.Errorf("keylime agent data of %d bytes, at most %d", len(data), maxAgentData)
	}
	var file struct {
		Public  []uint16 `json:"ak_public"`
		Private []uint16 `json:"ak_private"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("keylime agent data: %w", err)
	}
	d := &AgentData{}
	for _, list := range []struct {
		from []uint16
		into *[]byte
	}{{file.Public, &d.Public}, {file.Private, &d.Private}} {
		for _, n := range list.from {
			if n > 255 {
				return nil, fmt.Errorf("keylime agent data: %d is no byte", n)
			}
			*list.into = append(*list.into, byte(n))
		}
	}
	if len(d.Public) == 0 || len(d.Private) == 0 {
		return nil, errors.New("keylime agent data: no attestation key in it; want the agent_data.bin that Keylime's agent writes")
	}
	return d, nil
}
