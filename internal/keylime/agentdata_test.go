package keylime_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/internal/keylime"
)

func TestReadAgentData(t *testing.T) {
	d, err := keylime.ReadAgentData([]byte(`{"ak_hash_alg": "Sha256", "ak_public": [0, 1, 255], "ak_private": [2], "ek_hash": []}`))
	if err != nil || !bytes.Equal(d.Public, []byte{0, 1, 255}) || !bytes.Equal(d.Private, []byte{2}) {
		t.Errorf("%+v, %v", d, err)
	}
	for _, bad := range []string{
		"", "{}", `{"ak_public": [1], "ak_private": []}`, `{"ak_public": [256], "ak_private": [1]}`, `{"ak_public": [-1], "ak_private": [1]}`,
		`{"ak_public": "AAA=", "ak_private": [1]}`, strings.Repeat(" ", 64<<10+1),
	} {
		if _, err := keylime.ReadAgentData([]byte(bad)); err == nil {
			t.Errorf("%.40q is taken", bad)
		}
	}
}

func FuzzReadAgentData(f *testing.F) {
	f.Add([]byte(`{"ak_public": [0, 1, 255], "ak_private": [2]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if d, err := keylime.ReadAgentData(data); err == nil && (len(d.Public) == 0 || len(d.Private) == 0) {
			t.Fatalf("%+v", d)
		}
	})
}
