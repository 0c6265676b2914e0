package main

// signatureFile is where the signature of a policy is.
func signatureFile(policy string) string { return policy + ".sig" }
