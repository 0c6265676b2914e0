package main

import (
	"crypto/rand"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/quote"
)

func (p *program) challengeCommand() *cli.Command {
	return &cli.Command{
		Name:  "challenge",
		Usage: "draw a challenge, for evidence that is verified somewhere else",
		Description: "Prints 32 random bytes in hexadecimal. Draw it where the verdict will be computed, and use it once:\n\n" +
			"   challenge=$(deepattest challenge)\n" +
			"   ssh guest deepattest collect --challenge $challenge --output - |\n" +
			"      deepattest verify - --challenge $challenge --policy policy.yaml --trust trust.yaml",
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			_, err := fmt.Fprintln(p.out, drawChallenge())
			return err
		},
	}
}

func drawChallenge() quote.Hex {
	b := make(quote.Hex, quote.ChallengeSize)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}
