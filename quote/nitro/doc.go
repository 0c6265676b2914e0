// Package nitro reads the attestation documents of AWS: what the Nitro system says
// about the NitroTPM of an instance, signed by a certificate of AWS.
//
// "NSM" is docs/attestation_process.md of aws/aws-nitro-enclaves-nsm-api, which lays
// down the document; the EC2 User Guide, "Validate a NitroTPM Attestation Document",
// has the same with nitrotpm_pcrs in the place of pcrs. Nothing here trusts anything:
// package verify/cloud checks the signature and what was signed.
package nitro
