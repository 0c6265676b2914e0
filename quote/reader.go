package quote

import "github.com/deepattest/deepattest/quote/internal/wire"

// ParseError says where and why a binary structure was refused.
type ParseError = wire.ParseError

// reader is a wire.Reader that knows the structures which several parsers read.
type reader struct{ wire.Reader }

// bigEndian reads TPM structures.
func bigEndian(name string, b []byte) *reader { return &reader{wire.BigEndian(name, b)} }

// littleEndian reads firmware structures.
func littleEndian(name string, b []byte) *reader { return &reader{wire.LittleEndian(name, b)} }
