package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

// Prometheus writes a result in the text exposition format, for the textfile
// collector of node_exporter. Verdicts are state sets: one series for each word,
// 1 for the one that holds. The age of a result is
// time() - deepattest_result_timestamp_seconds.
func Prometheus(w io.Writer, r *policy.Result, o Options) error {
	m := &metrics{}
	m.family("deepattest_verdict", "The verdict that holds is 1.")
	m.states(r.Verdict)
	m.family("deepattest_result_timestamp_seconds", "Time of the appraisal, in seconds since 1970.")
	m.sample(r.Now.Unix())
	m.family("deepattest_layer_verdict", "The verdict on a layer (host, link, guest) that holds is 1.")
	for _, name := range layerNames() {
		l := layerNamed(r, name)
		m.states(l.Verdict, "layer", string(name), "name", clean(l.Name, maxName))
	}
	m.family("deepattest_checks", "Number of checks by layer and status.")
	for _, layer := range []verify.Layer{verify.Format, verify.Host, verify.Link, verify.Guest, verify.Policy, verify.Context} {
		count := make(map[verify.Status]int)
		for _, c := range r.Checks {
			if layerOf(c.Check) == layer {
				count[min(c.Status, verify.Malfunction+1)]++
			}
		}
		count[verify.Unknown] += count[verify.Malfunction+1] // no status of this version
		for s := verify.Unknown; s <= verify.Malfunction; s++ {
			m.sample(int64(count[s]), "layer", string(layer), "status", s.String())
		}
	}
	m.family("deepattest_checks_blocking", "Number of checks that keep the verdict from being trusted.")
	blocking := 0
	for _, c := range r.Checks {
		if !holds(c) {
			blocking++
		}
	}
	m.sample(int64(blocking))
	m.family("deepattest_unsafe_options", "Number of unsafe options in force.")
	m.sample(int64(len(r.Unsafe)))
	m.family("deepattest_result_info", "What the result was made from; always 1.")
	m.sample(1, "policy", clean(r.Policy.Name, maxName), "policy_sha256", r.Policy.Digest.String(),
		"evidence_sha256", r.Evidence.String(), "verified", clean(string(r.Verified), maxName), "build", o.build())
	return write(w, []byte(m.b.String()))
}

// metrics is an exposition being written. Every family is a gauge.
type metrics struct {
	b    strings.Builder
	name string
}

func (m *metrics) family(name, help string) {
	m.name = name
	fmt.Fprintf(&m.b, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name)
}

// sample writes one series; labels are names and values in turn.
func (m *metrics) sample(value int64, labels ...string) {
	m.b.WriteString(m.name)
	for i := 0; i < len(labels); i += 2 {
		fmt.Fprintf(&m.b, `%c%s="%s"`, "{,"[min(i, 1)], labels[i], labelEscapes.Replace(labels[i+1]))
	}
	if len(labels) > 0 {
		m.b.WriteByte('}')
	}
	fmt.Fprintf(&m.b, " %d\n", value)
}

// states writes a series for each verdict.
func (m *metrics) states(v policy.Verdict, labels ...string) {
	if v > policy.Rejected {
		v = policy.Inconclusive
	}
	for state := policy.Inconclusive; state <= policy.Rejected; state++ {
		value := int64(0)
		if v == state {
			value = 1
		}
		m.sample(value, append(labels[:len(labels):len(labels)], "verdict", state.String())...)
	}
}

// labelEscapes are those of a label's value (exposition format 0.0.4).
var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
