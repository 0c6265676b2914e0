package testlab

import "github.com/deepattest/deepattest/quote"

// Carried is the evidence of the guest on a host that only quotes what it is given,
// by method nonce-only or ek-certified, with nothing wrong in it. Who verifies it has
// to know the guest's keys: by a pin for the one, by an activation for the other.
func (w *World) Carried(challenge []byte, method string) (*quote.Bundle, error) {
	b, err := w.Bundle(challenge)
	if err != nil {
		return nil, err
	}
	c := &carried{Scene: &Scene{World: w, Bundle: b}}
	if method != quote.LinkEKCertified {
		return b, c.link(method)
	}
	if err := c.certified(); err != nil {
		return nil, err
	}
	return b, c.certify()
}
