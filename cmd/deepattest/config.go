package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/urfave/cli/v2"
	"gopkg.in/yaml.v3"
)

// defaultConfig is read where it is there and no other file is named.
const defaultConfig = "/etc/deepattest/config.yaml"

// maxConfig bounds the configuration file.
const maxConfig = 64 << 10

func configFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", EnvVars: env("config"), Usage: "YAML `FILE` with values of flags, such as `host: https://host-a:8443`; default: " + defaultConfig + " where it is there. Flags and DEEPATTEST_ variables come first"}
}

// configurable reports whether a flag may stand in the configuration file: those
// that may stand in the environment.
func configurable(f cli.Flag) bool {
	e, ok := f.(interface{ GetEnvVars() []string })
	return ok && len(e.GetEnvVars()) > 0
}

// configure gives a command's flags the values of the configuration file, unless
// the command line or the environment set them. One file serves all commands.
func configure(c *cli.Context, commands []*cli.Command) error {
	path := c.String("config")
	data, err := readFile(firstOf(path, defaultConfig), maxConfig)
	if errors.Is(err, fs.ErrNotExist) && path == "" {
		return nil
	}
	if err != nil {
		return usagef("configuration: %w", err)
	}
	return usage(apply(c, firstOf(path, defaultConfig), data, commands))
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func apply(c *cli.Context, path string, data []byte, commands []*cli.Command) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	if len(doc.Content) == 0 {
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("configuration %s: line %d: want a mapping of flags to values, such as `host: https://host-a:8443`", path, root.Line)
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, v := root.Content[i], root.Content[i+1]
		if !anyHas(commands, key.Value) {
			return fmt.Errorf("configuration %s: line %d: %q is no flag that can be configured", path, key.Line, key.Value)
		}
		values := []*yaml.Node{v}
		if v.Kind == yaml.SequenceNode {
			values = v.Content
		}
		if c.IsSet(key.Value) || !has(c.Command, key.Value) {
			continue
		}
		for _, v := range values {
			if v.Kind != yaml.ScalarNode {
				return fmt.Errorf("configuration %s: line %d: %s: want a value or a list of values", path, v.Line, key.Value)
			}
			if err := c.Set(key.Value, v.Value); err != nil {
				return fmt.Errorf("configuration %s: line %d: %s %q: %w", path, v.Line, key.Value, v.Value, err)
			}
		}
	}
	return nil
}

// has reports whether a command has a flag that can be configured.
func has(command *cli.Command, name string) bool {
	return slices.ContainsFunc(command.Flags, func(f cli.Flag) bool { return name != "config" && configurable(f) && slices.Contains(f.Names(), name) })
}

// anyHas reports whether any command has such a flag.
func anyHas(commands []*cli.Command, name string) bool {
	return slices.ContainsFunc(commands, func(c *cli.Command) bool { return has(c, name) || anyHas(c.Subcommands, name) })
}
