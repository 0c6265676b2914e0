package xen

import (
	"encoding/binary"
	"fmt"
)

// Tags of commands (TPM 1.2 Part 2, section 6; vtpm_manager.h).
const (
	tagCommand     = 0x00C1 // TPM_TAG_RQU_COMMAND; +1 and +2 with one and two authorizations
	tagPassthrough = 0x01C1 // VTPM_TAG_REQ: the vTPM's domain hands it to the physical TPM
	tagManage      = 0x01C2 // VTPM_TAG_REQ2: vtpmmgr's own commands
)

// Ordinals (TPM 1.2 Part 2, section 17), with Xen's own.
const (
	ordOIAP           = 0x0A
	ordPCRRead        = 0x15
	ordGetCapability  = 0x65
	ordReadPubek      = 0x7C
	ordOwnerReadEK    = 0x81 // TPM_OwnerReadInternalPub
	ordNVRead         = 0xCF
	ordDeepQuote      = 0x20000016 // the vTPM's vendor bit and TPM_ORD_Quote
	ordGroupList      = 0x02000101
	ordGroupNew       = 0x02000102
	ordGroupActivate  = 0x02000104
	ordGroupShow      = 0x02000107
	ordVTPMList       = 0x02000201
	ordVTPMNew        = 0x02000204
	capVersion        = 0x1A // TPM_CAP_VERSION_VAL
	handleEK          = 0x40000006
	nvEKCertificate   = 0x1000F000
	headerSize        = 10
	vendorTPMEmulator = "ETHZ" // of the TPM emulator that Xen's vTPM is made of
)

// Error is a TPM's or vtpmmgr's refusal of a command.
type Error struct {
	Command string
	Code    uint32 // TPM_RESULT
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s", e.Command, codeName(e.Code))
}

// Codes that decide what to do next (TPM 1.2 Part 2, section 16).
const (
	codeAuthFail     = 1
	codeBadParameter = 3
	codeDisabled     = 8
	codeBadTag       = 0x1E
)

func codeName(code uint32) string {
	names := map[uint32]string{
		codeAuthFail: "TPM_AUTHFAIL", 2: "TPM_BADINDEX", codeBadParameter: "TPM_BAD_PARAMETER", 5: "VTPM_INVALID_REQUEST",
		6: "TPM_DEACTIVATED", 7: "TPM_DISABLED", codeDisabled: "TPM_DISABLED_CMD", 9: "TPM_FAIL", 10: "TPM_BAD_ORDINAL",
		0x10: "TPM_INVALID_PCR_INFO", 0x12: "TPM_NOSRK", codeBadTag: "TPM_BADTAG", 0x22: "TPM_INVALID_AUTHHANDLE",
		0x23: "TPM_NO_ENDORSEMENT", 0x26: "TPM_INVALID_POSTINIT", 0x33: "TPM_NOTLOCAL", 0x800: "TPM_RETRY",
	}
	if name, ok := names[code]; ok {
		return fmt.Sprintf("%s (0x%x)", name, code)
	}
	return fmt.Sprintf("result 0x%x", code)
}

func commandName(ordinal uint32) string {
	names := map[uint32]string{
		ordOIAP: "TPM_OIAP", ordPCRRead: "TPM_PcrRead", ordGetCapability: "TPM_GetCapability", ordReadPubek: "TPM_ReadPubek",
		ordOwnerReadEK: "TPM_OwnerReadInternalPub", ordNVRead: "TPM_NV_ReadValue", ordDeepQuote: "TPM_DeepQuote",
		ordGroupList: "GROUP_LIST", ordGroupNew: "GROUP_NEW", ordGroupActivate: "GROUP_ACTIVATE", ordGroupShow: "GROUP_SHOW",
		ordVTPMList: "VTPM_LIST", ordVTPMNew: "VTPM_NEW",
	}
	if name, ok := names[ordinal]; ok {
		return name
	}
	return fmt.Sprintf("command 0x%08x", ordinal)
}

// command builds a request.
func command(tag uint16, ordinal uint32, body []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, tag)
	b = binary.BigEndian.AppendUint32(b, uint32(headerSize+len(body)))
	b = binary.BigEndian.AppendUint32(b, ordinal)
	return append(b, body...)
}

// body takes fixed fields off an answer; the first that is missing makes all later
// ones empty.
type body struct {
	b   []byte
	bad bool
}

func (r *body) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return make([]byte, max(0, min(n, 1<<12)))
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *body) u16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *body) u32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }

// end reports an answer of another length than its fields have.
func (r *body) end(ordinal uint32) error {
	if r.bad {
		return fmt.Errorf("%s: the answer is too short", commandName(ordinal))
	}
	if len(r.b) > 0 {
		return fmt.Errorf("%s: %d bytes after the answer", commandName(ordinal), len(r.b))
	}
	return nil
}
