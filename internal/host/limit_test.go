package host

import (
	"fmt"
	"testing"
	"time"
)

func TestRates(t *testing.T) {
	r := newRates(Limits{Burst: 2, Interval: time.Second})
	now := time.Unix(1000, 0)
	for n, want := range []bool{true, true, false} {
		if _, ok := r.take("a", now); ok != want {
			t.Errorf("request %d: %v", n, ok)
		}
	}
	if wait, ok := r.take("a", now); ok || wait != time.Second {
		t.Errorf("wait %s", wait)
	}
	if _, ok := r.take("b", now); !ok {
		t.Error("another key has to wait")
	}
	if _, ok := r.take("a", now.Add(time.Second)); !ok {
		t.Error("refused after the wait it was told")
	}
	if _, ok := r.take("a", now.Add(time.Second)); ok {
		t.Error("one interval gave two requests")
	}
	later := now.Add(time.Hour)
	for n, want := range []bool{true, true, false} {
		if _, ok := r.take("a", later); ok != want {
			t.Errorf("after an hour, request %d: %v", n, ok)
		}
	}
}

func TestRatesAreBounded(t *testing.T) {
	r := newRates(Limits{Burst: 1, Interval: time.Second})
	now := time.Unix(1000, 0)
	for n := range maxRates {
		if _, ok := r.take(fmt.Sprint(n), now); !ok {
			t.Fatalf("key %d refused", n)
		}
	}
	if _, ok := r.take("one more", now); ok {
		t.Error("no bound")
	}
	if _, ok := r.take("one more", now.Add(2*time.Second)); !ok || len(r.full) != 1 {
		t.Errorf("%d keys remembered after they were done", len(r.full))
	}
}

func TestNetwork(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1234":             "192.0.2.7",
		"[::ffff:192.0.2.7]:1234":    "192.0.2.7",
		"[2001:db8:1:2:3:4:5:6]:99":  "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff::1]:100": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1":           "fe80::/64",
		"@":                          "local",
		"":                           "local",
	} {
		if got := network(remote); got != want {
			t.Errorf("%q: %q, want %q", remote, got, want)
		}
	}
}
