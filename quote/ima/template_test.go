package ima

import (
	"encoding/binary"
	"strings"
	"testing"
)

// The name of a template is what the list's author wrote. An entry that is called
// one of the old template is hashed as before, and its name would begin within the
// digest, where whoever makes the file can look for one that a policy excludes.
func TestTemplateOfAnother(t *testing.T) {
	for _, field := range []string{
		"sha256:\x00" + strings.Repeat("d", 8) + "/tmp/" + strings.Repeat("d", 19),
		"sha1:\x00" + strings.Repeat("d", 10) + "/tmp/" + strings.Repeat("d", 5),
		"verity:sha256:\x00" + strings.Repeat("d", 32),
	} {
		data := templateData(field, "")
		name := "/usr/bin/" + strings.Repeat("x", oldBytes-len(data)-10) + "\x00"
		data = templateData(field, name)
		record, hashed := oldRecord(data[:20], string(data[20:275]))
		if string(hashed) != string(data) {
			t.Fatal("the old template is hashed in another form")
		}
		_, at, _ := strings.Cut(string(record), "ima")
		if n := binary.LittleEndian.Uint32([]byte(at[20:])); n != 255 {
			t.Fatalf("a name of %d bytes", n)
		}
		for e, err := range Entries(record) {
			if err != nil {
				t.Fatal(err)
			}
			if f, err := e.Fields(); err == nil || !strings.Contains(err.Error(), "newer template") {
				t.Errorf("%q: %+v, %v", field, f, err)
			}
		}
	}
}
