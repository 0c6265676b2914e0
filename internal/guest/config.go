package guest

import (
	"context"
	"errors"
	"fmt"

	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// TPM is what collecting needs of a *tpm.TPM.
type TPM interface {
	Quoter
	Info(context.Context) (quote.TPM, error)
	EK(context.Context, tpm.KeyAlg) (*tpm.EK, error)
	EKCertificate(context.Context, *tpm.EK) (tpm.Certificate, error)
	CreateAK(context.Context, tpm.KeyAlg) (*tpm.AK, error)
	ActivateCredential(ctx context.Context, ak *tpm.AK, ek *tpm.EK, idObject, encryptedSecret []byte) ([]byte, error)
	Flush(context.Context, tpm.Key) error
}

// Config says what to collect. TPM, Challenge and Selection are mandatory.
type Config struct {
	TPM       TPM             // stays open; everything loaded into it is flushed again
	Challenge []byte          // the verifier's, quote.MinChallenge..MaxChallenge bytes
	Selection quote.Selection // PCRs that the guest quotes
	EK        tpm.KeyAlg      // kind of EK, the TPM's choice when zero
	AK        tpm.KeyAlg      // kind of AK, the TPM's choice when zero

	// HostSelection is the PCRs wanted of the host; empty leaves it to the host.
	HostSelection quote.Selection

	// EKCertificate asks for the EK's certificate too, two or three commands more.
	// A guest whose host vouches for it needs none.
	EKCertificate bool

	Paths   Paths
	VM      quote.UUID    // overrides the uuid that SMBIOS states
	Context quote.Context // Collector, Collected and GuestName go into the bundle as given
}

// Paths are the files that are read. An empty path is not tried, and so is not
// listed as missing either.
type Paths struct {
	EventLog     string // TCG event log of the firmware
	UserspaceLog string // systemd's TPM log, TCG Canonical Event Log JSON
	IMA          string // IMA list, binary
	ProductUUID  string // the VM's uuid as text
}

// DefaultPaths returns the places where Linux and systemd keep these files.
func DefaultPaths() Paths {
	return Paths{
		EventLog:     "/sys/kernel/security/tpm0/binary_bios_measurements",
		UserspaceLog: "/run/log/systemd/tpm2-measure.log",
		IMA:          "/sys/kernel/security/ima/binary_runtime_measurements",
		ProductUUID:  "/sys/class/dmi/id/product_uuid",
	}
}

func (c *Config) validate() error {
	if c.TPM == nil {
		return errors.New("collect evidence: no TPM was opened")
	}
	if err := quote.CheckChallenge(c.Challenge); err != nil {
		return fmt.Errorf("collect evidence: %w", err)
	}
	if c.Selection.Empty() {
		return errors.New("collect evidence: no PCR is selected; name some, such as sha256:0,1,2,3,4,5,6,7")
	}
	return nil
}
