// Package openstack asks an OpenStack cloud about a virtual machine: from inside
// the guest without credentials (metadata service, config drive), and from anywhere
// with the tenant's (compute, image and key manager APIs).
//
// Everything it returns is what the cloud's operator asserts. It finds the host's
// quote service, helps people to spot mix-ups, and carries evidence where no network
// does. It proves nothing, and no verdict rests on it.
package openstack
