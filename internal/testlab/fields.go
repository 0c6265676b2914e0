package testlab

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// WholePolicy is a policy that says something in every field that a policy may
// have, in one of its layers, and its files.
func WholePolicy() (text []byte, load func(name string) ([]byte, error)) {
	short, long := strings.Repeat("a", 40), strings.Repeat("b", 64)
	list := fmt.Appendf(nil, `{"digests": {"/usr/bin/a": [%q]}, "excludes": ["/tmp/"]}`, long)
	return fmt.Appendf(nil, `apiVersion: deepattest/v1
kind: Policy
metadata: {name: whole, description: all there is, expires: 2030-01-01T00:00:00Z}
trust:
  hosts: any-with-known-maker
  roots: [builtin]
  revocation: require
  guests: {accept: [vouched]}
  link: {minimum: nonce-only}
  xen: {labels: [label], groups: [%[1]s], groupKeys: [%[1]s]}
freshness: {maxAge: 5m}
host:
  tpm: {version: "1.2", expiredEK: warn}
  pcrs: {0: [%[1]s]}
  ima: {allow: [%[2]s]}
guest:
  tpm: {bank: sha256, denyFirmware: ["IFX <7.63"]}
  pcrs: {4: [{sha256: %[2]s, note: good, components: [{name: shim, detail: old, sha256: %[2]s}]}]}
  profiles: [{name: node, pcrs: {9: %[2]s}}]
  log: {explains: [4]}
  secureBoot: {required: true, forbidSetupMode: true, known: true, certificates: [%[2]s], dbx: {entries: 3, contains: [%[2]s]}}
  cmdline: {allow: [quiet], deny: [single], require: [quiet]}
  ima: {required: true, allow: files/ima@sha256:%[3]x, accept: [kexec, sha1-padded]}
  events: {require: [{pcr: 4, component: kernel, sha256: %[2]s}], deny: [{pcr: 11, component: uki, sha256: %[2]s}]}
warnOnly: [policy.guest.pcr.4]
`, short, long, sha256.Sum256(list)), func(string) ([]byte, error) { return list, nil }
}

// Fields lists the exported fields of a struct type and of the structs that it is
// made of, as "LayerPolicy.Bank". Of a field that is a struct it lists the fields.
func Fields(t reflect.Type) (list []string) {
	seen := make(map[reflect.Type]bool)
	var walk func(reflect.Type)
	walk = func(t reflect.Type) {
		switch t.Kind() {
		case reflect.Map:
			walk(t.Key())
			walk(t.Elem())
		case reflect.Pointer, reflect.Slice, reflect.Array:
			walk(t.Elem())
		case reflect.Struct:
			if seen[t] {
				return
			}
			seen[t] = true
			for f := range fieldsOf(t) {
				before := len(list)
				walk(f.Type)
				if f.Type.Kind() != reflect.Struct || len(list) == before {
					list = append(list, t.Name()+"."+f.Name)
				}
			}
		}
	}
	walk(t)
	return list
}

func fieldsOf(t reflect.Type) func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() && !yield(f) {
				return
			}
		}
	}
}

// Change gives each field of what root points to, and of all that hangs from it,
// another value, one at a time: the zero value, and one beside what it has. f is
// called with the field's name after each change, and root is as it was in the
// end. Of a list and of a map it changes one entry.
func Change(root any, f func(field string)) { change(reflect.ValueOf(root).Elem(), "", f) }

func change(v reflect.Value, field string, f func(string)) {
	old := reflect.New(v.Type()).Elem()
	old.Set(v)
	to := func(x any) {
		v.Set(reflect.ValueOf(x).Convert(v.Type()))
		f(field)
		v.Set(old)
	}
	switch x := v.Interface().(type) {
	case time.Time:
		to(x.Add(time.Hour))
		to(time.Time{})
		return
	case *regexp.Regexp:
		to(regexp.MustCompile("^another"))
		return
	}
	if v.Kind() != reflect.Struct {
		to(reflect.Zero(v.Type()).Interface())
	}
	switch v.Kind() {
	case reflect.Bool:
		to(!v.Bool())
	case reflect.Int, reflect.Int64:
		to(v.Int() + 1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		to(v.Uint() + 1)
	case reflect.String:
		to(v.String() + "x")
	case reflect.Pointer:
		if !v.IsNil() {
			change(v.Elem(), field, f)
		}
	case reflect.Struct:
		for t := range fieldsOf(v.Type()) {
			change(v.FieldByIndex(t.Index), v.Type().Name()+"."+t.Name, f)
		}
	case reflect.Slice:
		if v.Len() > 0 {
			change(v.Index(0), field, f)
		}
	case reflect.Map:
		changeEntry(v, field, f)
	default:
		panic("testlab: no other value of " + field)
	}
}

// changeEntry changes the key and the value of a map's first entry.
func changeEntry(m reflect.Value, field string, f func(string)) {
	keys := m.MapKeys()
	if len(keys) == 0 {
		return
	}
	first := slices.MinFunc(keys, func(a, b reflect.Value) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	key, value := reflect.New(m.Type().Key()).Elem(), reflect.New(m.Type().Elem()).Elem()
	key.Set(first)
	value.Set(m.MapIndex(first))
	put := func(field string) {
		old, there := m.MapIndex(first), m.MapIndex(key)
		m.SetMapIndex(first, reflect.Value{})
		m.SetMapIndex(key, value)
		f(field)
		m.SetMapIndex(key, there)
		m.SetMapIndex(first, old)
	}
	change(value, field, put)
	change(key, field, put)
}

// Set returns the fields that are not zero in what root points to, or in anything
// that hangs from it.
func Set(root any) map[string]bool {
	set := make(map[string]bool)
	var walk func(reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				walk(v.Elem())
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		case reflect.Map:
			for _, key := range v.MapKeys() {
				walk(v.MapIndex(key))
			}
		case reflect.Struct:
			for t := range fieldsOf(v.Type()) {
				field := v.FieldByIndex(t.Index)
				if !field.IsZero() {
					set[v.Type().Name()+"."+t.Name] = true
				}
				walk(field)
			}
		}
	}
	walk(reflect.ValueOf(root))
	return set
}
