package tpm

import (
	"context"
	"io"
)

// Dial connects to what an address of Open names, and asks it nothing: it may be a
// TPM of any family. Errors are those of Open.
func Dial(ctx context.Context, address string) (io.ReadWriteCloser, error) { return dial(ctx, address) }

// Exchange sends one command of a TPM of any family and reads the whole response,
// whose header has the same form in all of them: at most 4096 bytes.
func Exchange(conn io.ReadWriter, command []byte) ([]byte, error) { return exchange(conn, command) }
