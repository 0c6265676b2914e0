package keylime_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/keylime"
	"github.com/deepattest/deepattest/policy"
)

// pluginRunner has the plug-in examine documents: one JSON object on stdin for each.
const pluginRunner = `
import base64, datetime, json, sys
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import deepattest_keylime as p
keys, max_age = p.load_config(sys.argv[2])
for line in sys.stdin:
    q = json.loads(line)
    try:
        d = p.examine(q["text"], q["agent"], base64.b64decode(q["challenge"]), keys, max_age, p.parse_time(q["now"]))
        print(json.dumps({"verdict": d["verdict"]}))
    except p.Refused as refusal:
        print(json.dumps({"refused": str(refusal)}))
`

// TestPlugin: the plug-in reads the documents that this package writes, and both refuse
// the same ones. TestRealPlugin runs it inside of a Keylime.
func TestPlugin(t *testing.T) {
	python := "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import cryptography").Run(); err != nil {
		t.Skipf("no Python with the module cryptography: %v (apt-get install python3-cryptography)", err)
	}
	dir := t.TempDir()
	ec := documentKey(t)
	edPublic, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	keys := []crypto.PublicKey{ec.Public(), edPublic}
	var names []string
	for i, key := range keys {
		der, err := x509.MarshalPKIXPublicKey(key)
		must(t, err)
		name := filepath.Join(dir, string(rune('a'+i))+".pem")
		must(t, os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600))
		names = append(names, name)
	}
	config := filepath.Join(dir, "config.json")
	text, err := json.Marshal(map[string]any{"keys": names, "max_age": 3600})
	must(t, err)
	must(t, os.WriteFile(config, text, 0o600))

	now := time.Now().UTC().Truncate(time.Second)
	challenge := []byte("sixteen bytes...")
	sign := func(key crypto.Signer, r *policy.Result, agent string, challenge []byte, issued time.Time) string {
		d, err := keylime.NewDocument(r, agent, challenge, issued)
		must(t, err)
		data, err := d.Sign(key)
		must(t, err)
		return string(data)
	}
	good := sign(ec, result(policy.Trusted), agentID, challenge, now)
	// edited changes the payload under the old signature.
	edited := func(old, new string) string {
		var e map[string]any
		must(t, json.Unmarshal([]byte(good), &e))
		payload, err := base64.StdEncoding.DecodeString(e["payload"].(string))
		must(t, err)
		e["payload"] = base64.StdEncoding.EncodeToString([]byte(strings.Replace(string(payload), old, new, 1)))
		out, err := json.Marshal(e)
		must(t, err)
		return string(out)
	}
	cases := []struct {
		name, text string
		now        time.Time
		refused    string // in both reasons where Go refuses too; empty: accepted
		both       bool   // OpenDocument refuses it as well
	}{
		{"ECDSA", good, now, "", false},
		{"Ed25519", sign(ed, result(policy.Trusted), agentID, challenge, now), now, "", false},
		{"without a challenge", sign(ec, result(policy.Trusted), agentID, nil, now), now, "", false},
		{"clock a little behind", good, now.Add(-time.Minute), "", false},
		{"untrusted", sign(ec, result(policy.Untrusted), agentID, challenge, now), now, "the verdict is untrusted", false},
		{"inconclusive", sign(ec, result(policy.Inconclusive), agentID, challenge, now), now, "the verdict is inconclusive", false},
		{"another agent", sign(ec, result(policy.Trusted), "other", challenge, now), now, "about agent", false},
		{"another challenge", sign(ec, result(policy.Trusted), agentID, []byte("another"), now), now, "a replay", false},
		{"another key", sign(documentKey(t), result(policy.Trusted), agentID, challenge, now), now, "no signature", true},
		{"edited", edited(`"trusted"`, `"trusted "`), now, "no signature", true},
		{"expired", good, now.Add(time.Hour), "", true},
		{"from the future", good, now.Add(-time.Hour), "", true},
		{"stale verdict", sign(ec, at(now.Add(-2*time.Hour)), agentID, challenge, now), now, "the verdict is of", false},
		{"no JSON", "rubbish", now, "cannot be read", true},
		{"no envelope", `{"payload": 5}`, now, "cannot be read", true},
		{"other type", strings.Replace(good, "keylime-verdict.v1", "keylime-verdict.v2", 1), now, "payloadType", true},
		{"empty", "", now, "0 characters", true},
	}
	// Where Go's and Python's words differ, the plug-in's are checked alone.
	reason := map[string]string{"expired": "valid from", "from the future": "valid from"}

	var in strings.Builder
	for _, c := range cases {
		line, err := json.Marshal(map[string]string{
			"text": c.text, "agent": agentID, "challenge": base64.StdEncoding.EncodeToString(challenge), "now": c.now.Format(time.RFC3339),
		})
		must(t, err)
		in.Write(append(line, '\n'))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "-B", "-c", pluginRunner, "../../examples/keylime", config)
	cmd.Env = append(os.Environ(), "DEEPATTEST_KEYLIME_TEST=1")
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%v: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != len(cases) {
		t.Fatalf("%d answers to %d documents: %s", len(lines), len(cases), out)
	}
	for i, c := range cases {
		var got struct{ Verdict, Refused string }
		must(t, json.Unmarshal([]byte(lines[i]), &got))
		want := c.refused
		if reason[c.name] != "" {
			want = reason[c.name]
		}
		if (got.Verdict == "trusted") != (want == "") || !strings.Contains(got.Refused, want) {
			t.Errorf("%s: the plug-in says %+v, want %q", c.name, got, want)
		}
		if _, err := keylime.OpenDocument([]byte(c.text), keys, c.now); (err != nil) != c.both {
			t.Errorf("%s: OpenDocument: %v", c.name, err)
		}
	}
}

// TestPluginConfig: the verifier does not start without the checks that were asked for.
func TestPluginConfig(t *testing.T) {
	python := "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import cryptography").Run(); err != nil {
		t.Skipf("no Python with the module cryptography: %v (apt-get install python3-cryptography)", err)
	}

	for _, c := range []struct{ text, want string }{
		{`{"keys": []}`, "no keys"},
		{`{"keys": ["/nowhere.pem"]}`, "No such file"},
		{`{"keys": [], "max-age": 1}`, "unknown settings: max-age"},
		{`{`, "Expecting"},
	} {
		config := filepath.Join(t.TempDir(), "config.json")
		must(t, os.WriteFile(config, []byte(c.text), 0o600))
		cmd := exec.Command(python, "-B", "-c", pluginRunner, "../../examples/keylime", config)
		cmd.Env = append(os.Environ(), "DEEPATTEST_KEYLIME_TEST=1")
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: %v: %s", c.text, err, out)
		}
	}
}
