package main

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/policy"
)

// Exit codes besides those of verdicts (policy.Verdict.ExitCode). They are an API.
const (
	exitUsage    = 2  // usage or configuration
	exitCannot   = 3  // could not assess, as an inconclusive verdict
	exitDelivery = 5  // a verdict was reached, delivering it failed
	exitFault    = 70 // EX_SOFTWARE of sysexits.h: this program is at fault
)

// exitCodes is the text of every help page.
const exitCodes = `EXIT CODES:
   0   trusted, or the command did its work
   1   untrusted: genuine evidence of a state that the policy does not accept
   2   usage or configuration: flags, policy or trust file
   3   inconclusive: could not be assessed: evidence, an anchor or the host is missing
   4   rejected: not authentic, or not linked
   5   a verdict was reached, delivering it failed
   70  internal fault
`

// exitError ends the program with a code. A nil err ends it without a message,
// because the result has said everything.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

// Unwrap returns the cause.
func (e *exitError) Unwrap() error { return e.err }

// usage marks an error that the caller of the program can mend in its flags or
// files.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{exitUsage, err}
}

func usagef(format string, args ...any) error { return usage(fmt.Errorf(format, args...)) }

// cannot marks an error that kept a machine from being assessed. One that has a
// code keeps it.
func cannot(err error) error {
	var e *exitError
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &exitError{exitCannot, err}
}

// verdictExit ends the program with a verdict's code.
func verdictExit(v policy.Verdict) error {
	if code := v.ExitCode(); code != 0 {
		return &exitError{code: code}
	}
	return nil
}

// report writes an error for people, or as JSON where that format was asked for,
// and returns the exit code.
func (p *program) report(err error) int {
	if err == nil {
		return 0
	}
	code := exitFault
	var e *exitError
	var coder cli.ExitCoder
	switch {
	case errors.As(err, &e):
		code = e.code
		if e.err == nil {
			return code
		}
	case errors.As(err, &coder): // urfave/cli: `help` for what is not there
		code = exitUsage
	}
	if p.json {
		out, _ := json.Marshal(map[string]any{"error": map[string]any{"exitCode": code, "message": err.Error()}}, json.Deterministic(true))
		fmt.Fprintf(p.err, "%s\n", out)
		return code
	}
	fmt.Fprintf(p.err, "deepattest: %v\n", err)
	return code
}
