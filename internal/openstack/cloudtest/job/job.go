//go:build openstack

// Package job is what the test and its VM tell each other.
package job

// Job is a program to run. One without arguments ends the VM.
type Job struct {
	Args  []string
	Env   []string
	Files map[string]string // written before, by path
}

// Done is what became of a job.
type Done struct {
	Out, Err string
	Code     int
	Seconds  float64
}
