//go:build openstack

// Package cloudtest runs deepattest against the real OpenStack services that
// scripts/openstack brings up: see there, and `make openstack`.
package cloudtest
