// Package docs holds the documents of this module. Its tests hold them, and the
// README, against the code: examples parse and compile, names exist.
package docs
