// Package examples holds files to start from. Its tests use every one of them.
package examples
