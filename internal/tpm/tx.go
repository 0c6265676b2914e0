package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// tx is the right to send commands: it belongs to one call of one method, and
// carries that call's context. It implements go-tpm's transport.TPM.
type tx struct {
	ctx context.Context
	t   *TPM
}

// inFlight is a command whose response has not been read.
type inFlight struct {
	command []byte
	reply   chan reply
}

type reply struct {
	response []byte
	err      error
}

// Waits between repeats of a command that the TPM put off: 2, 4, ... 256 ms.
const (
	firstWait = 2 * time.Millisecond
	lastWait  = 256 * time.Millisecond
)

// Send sends a command and returns the response. It repeats the command while
// the TPM says that it has not started it, until the context ends.
func (x *tx) Send(command []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(x.ctx, commandLimit)
	defer cancel()
	x = &tx{ctx: ctx, t: x.t}
	if err := x.settle(); err != nil {
		return nil, err
	}
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		response, err := x.roundTrip(command)
		if err != nil {
			return nil, err
		}
		rc := responseCode(response)
		if !notStarted(rc) {
			return response, nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("TPM at %s put off %s again and again (%w): %w", x.t.address, commandName(command), rc, ctx.Err())
		}
	}
}

// notStarted reports the warnings after which the same command is to be sent
// again (Part 2, section 6.6.3; Part 1, section 39.4).
func notStarted(rc tpm2.TPMRC) bool {
	switch rc {
	case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate:
		return true
	}
	return false
}

// roundTrip sends a command once.
func (x *tx) roundTrip(command []byte) ([]byte, error) {
	t := x.t
	if t.broken != nil {
		return nil, t.broken
	}
	if err := x.ctx.Err(); err != nil {
		return nil, fmt.Errorf("TPM at %s: %s not sent: %w", t.address, commandName(command), err)
	}
	t.commands.Add(1)
	sent := &inFlight{command: command, reply: make(chan reply, 1)}
	go func() {
		response, err := exchange(t.conn, command)
		sent.reply <- reply{response, err}
	}()
	t.unanswered = sent
	return x.await()
}

// settle does what an earlier call had no time for: it waits for the command that
// the call gave up, and flushes what that command and the call have loaded.
func (x *tx) settle() error {
	t := x.t
	if t.unanswered != nil {
		before := len(t.loaded)
		if _, err := x.await(); err != nil {
			return err
		}
		if len(t.loaded) > before {
			t.orphans = append(t.orphans, t.loaded[before:]...)
		}
	}
	for len(t.orphans) > 0 {
		handle := t.orphans[0]
		t.orphans = t.orphans[1:]
		if err := x.flush(handle); err != nil {
			return err
		}
	}
	return nil
}

// await reads the response of the command in flight and notes the handle it
// loaded.
func (x *tx) await() ([]byte, error) {
	t, sent := x.t, x.t.unanswered
	var r reply
	select {
	case r = <-sent.reply:
	case <-x.ctx.Done():
		return nil, fmt.Errorf("TPM at %s: no answer to %s; if another program holds the TPM, stop it: %w", t.address, commandName(sent.command), x.ctx.Err())
	}
	t.unanswered = nil
	if r.err != nil {
		t.broken = fmt.Errorf("TPM at %s: %s: %w", t.address, commandName(sent.command), r.err)
		return nil, t.broken
	}
	// TPM_TAG_RSP_COMMAND of TPM 1.2; a TPM 2.0 uses it only to refuse tags that
	// are not its own (Part 2, section 6.9, TPM_ST_RSP_COMMAND).
	if tag := tpm2.TPMST(binary.BigEndian.Uint16(r.response)); tag == tpm2.TPMSTRspCommand {
		t.broken = fmt.Errorf("TPM at %s: %w", t.address, ErrTPM12)
		return nil, t.broken
	}
	x.track(sent.command, r.response)
	return r.response, nil
}

// track keeps the list of loaded handles from what the TPM was told and answered.
func (x *tx) track(command, response []byte) {
	switch commandCode(command) {
	case tpm2.TPMCCCreatePrimary, tpm2.TPMCCLoad, tpm2.TPMCCStartAuthSession:
		if responseCode(response) == tpm2.TPMRCSuccess && len(response) >= headerSize+4 {
			x.t.loaded = append(x.t.loaded, tpm2.TPMHandle(binary.BigEndian.Uint32(response[headerSize:])))
		}
	case tpm2.TPMCCFlushContext:
		// A handle that the TPM refuses to flush is not loaded, unless it put the
		// command off.
		if !notStarted(responseCode(response)) {
			x.forget(tpm2.TPMHandle(binary.BigEndian.Uint32(command[headerSize:])))
		}
	}
}

// forget drops a handle that the TPM itself has flushed.
func (x *tx) forget(handle tpm2.TPMHandle) {
	x.t.loaded = slices.DeleteFunc(x.t.loaded, func(h tpm2.TPMHandle) bool { return h == handle })
}

// flush unloads a handle, if it is one of those that t has loaded.
func (x *tx) flush(handle tpm2.TPMHandle) error {
	if !slices.Contains(x.t.loaded, handle) {
		return nil
	}
	_, err := tpm2.FlushContext{FlushHandle: handle}.Execute(x)
	if errors.Is(err, tpm2.TPMRCHandle) || errors.Is(err, tpm2.TPMRCValue) {
		return nil // it is gone already: a session that its last command ended
	}
	if err != nil {
		return x.fail(fmt.Sprintf("flush handle 0x%08x", uint32(handle)), err)
	}
	return nil
}

// discard flushes a handle after a failure: now, or in the next call when this
// one has no time left.
func (x *tx) discard(handle tpm2.TPMHandle) error {
	if x.ctx.Err() != nil {
		x.t.orphans = append(x.t.orphans, handle)
		return nil
	}
	return x.flush(handle)
}

// fail says which operation failed on which TPM, and what to do about response
// codes that have a usual cause.
func (x *tx) fail(operation string, err error) error {
	if err == x.t.broken || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", operation, err)
	}
	hint := ""
	switch {
	case errors.Is(err, tpm2.TPMRCBadAuth), errors.Is(err, tpm2.TPMRCAuthFail):
		hint = "; the endorsement hierarchy has a password, and an empty one is needed (tpm2_changeauth -c e)"
	case errors.Is(err, tpm2.TPMRCHierarchy):
		hint = "; the endorsement hierarchy is disabled: enable it in firmware setup"
	case errors.Is(err, tpm2.TPMRCObjectMemory), errors.Is(err, tpm2.TPMRCSessionMemory), errors.Is(err, tpm2.TPMRCObjectHandles), errors.Is(err, tpm2.TPMRCSessionHandles):
		hint = "; other programs left objects in the TPM: use /dev/tpmrm0, or flush them (tpm2_flushcontext -t)"
	case errors.Is(err, tpm2.TPMRCInitialize):
		hint = "; the TPM was not started: firmware or emulator must send TPM2_Startup"
	case errors.Is(err, tpm2.TPMRCLockout):
		hint = "; the TPM is in dictionary attack lockout: wait, or clear it (tpm2_dictionarylockout -c)"
	}
	return fmt.Errorf("TPM at %s: %s: %w%s", x.t.address, operation, err, hint)
}

func commandCode(command []byte) tpm2.TPMCC {
	return tpm2.TPMCC(binary.BigEndian.Uint32(command[6:]))
}

// commandName is the name in Part 3 of a command that this package sends.
func commandName(command []byte) string {
	switch code := commandCode(command); code {
	case tpm2.TPMCCGetCapability:
		return "TPM2_GetCapability"
	case tpm2.TPMCCPCRRead:
		return "TPM2_PCR_Read"
	case tpm2.TPMCCPCRExtend:
		return "TPM2_PCR_Extend"
	case tpm2.TPMCCReadPublic:
		return "TPM2_ReadPublic"
	case tpm2.TPMCCCreatePrimary:
		return "TPM2_CreatePrimary"
	case tpm2.TPMCCLoad:
		return "TPM2_Load"
	case tpm2.TPMCCNVReadPublic:
		return "TPM2_NV_ReadPublic"
	case tpm2.TPMCCNVRead:
		return "TPM2_NV_Read"
	case tpm2.TPMCCNVWrite:
		return "TPM2_NV_Write"
	case tpm2.TPMCCNVDefineSpace:
		return "TPM2_NV_DefineSpace"
	case tpm2.TPMCCNVUndefineSpace:
		return "TPM2_NV_UndefineSpace"
	case ccNSMRequest:
		return "AWS_NSM_Request"
	case tpm2.TPMCCStartAuthSession:
		return "TPM2_StartAuthSession"
	case tpm2.TPMCCPolicySecret:
		return "TPM2_PolicySecret"
	case tpm2.TPMCCActivateCredential:
		return "TPM2_ActivateCredential"
	case tpm2.TPMCCQuote:
		return "TPM2_Quote"
	case tpm2.TPMCCCertify:
		return "TPM2_Certify"
	case tpm2.TPMCCSign:
		return "TPM2_Sign"
	case tpm2.TPMCCPCRReset:
		return "TPM2_PCR_Reset"
	case tpm2.TPMCCFlushContext:
		return "TPM2_FlushContext"
	default:
		return fmt.Sprintf("command 0x%08x", uint32(code))
	}
}

func responseCode(response []byte) tpm2.TPMRC {
	return tpm2.TPMRC(binary.BigEndian.Uint32(response[6:]))
}
