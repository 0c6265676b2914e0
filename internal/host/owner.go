package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// TPM is what the service needs of a *tpm.TPM.
type TPM interface {
	guest.Quoter
	ActivateCredential(ctx context.Context, ak *tpm.AK, ek *tpm.EK, idObject, encryptedSecret []byte) ([]byte, error)
}

// Errors of the owner's queues.
var (
	errBusy     = errors.New("the queue for the host's TPM is full")
	errStopping = errors.New("the host service is stopping")
)

// owner is the one user of the TPM: its goroutine does the work that others queue.
// A physical TPM makes 2 to 5 quotes a second, so everybody who waits for a quote
// when it becomes free shares the next one.
type owner struct {
	tpm       TPM
	ek        *tpm.EK
	ak        *tpm.AK
	selection quote.Selection
	limit     time.Duration // of one piece of TPM work
	leaves    chan *leaf
	tasks     chan func(context.Context)
	stopped   chan struct{} // closed when run has returned
}

// leaf is one guest's place under the next quote.
type leaf struct {
	ctx       context.Context // whoever waits for it
	challenge []byte
	link      quote.Link
	done      chan<- outcome[*Quoted] // has room for one
}

type outcome[V any] struct {
	value V
	err   error
}

func newOwner(c *Config) *owner {
	return &owner{
		tpm: c.TPM, ek: c.Keys.EK, ak: c.Keys.AK, selection: c.Selection, limit: c.Limits.TPM,
		leaves:  make(chan *leaf, c.Limits.Quotes),
		tasks:   make(chan func(context.Context), c.Limits.Tasks),
		stopped: make(chan struct{}),
	}
}

// run works until the context ends.
func (o *owner) run(ctx context.Context) {
	defer close(o.stopped)
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-o.leaves:
			o.quoteAll(ctx, o.waiting(l))
		case task := <-o.tasks:
			o.within(ctx, task)
		}
	}
}

// within bounds a piece of TPM work.
func (o *owner) within(ctx context.Context, task func(context.Context)) {
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	task(ctx)
}

// waiting takes all that is queued and that somebody still waits for.
func (o *owner) waiting(first *leaf) []*leaf {
	var batch []*leaf
	for l := first; ; {
		if l.ctx.Err() == nil {
			batch = append(batch, l)
		}
		select {
		case l = <-o.leaves:
		default:
			return batch
		}
	}
}

// quoteAll makes one quote over a tree of leaves and hands each its proof.
func (o *owner) quoteAll(ctx context.Context, batch []*leaf) {
	if len(batch) == 0 {
		return
	}
	var shared *Quoted
	var tree *quote.Tree
	var err error
	o.within(ctx, func(ctx context.Context) { shared, tree, err = o.quoteTree(ctx, batch) })
	for i, l := range batch {
		if err != nil {
			l.done <- outcome[*Quoted]{err: err}
			continue
		}
		q := *shared
		q.Link = l.link
		q.Link.TreeSize, q.Link.LeafIndex = tree.Size(), uint64(i)
		var proofErr error
		q.Link.Inclusion, proofErr = tree.Inclusion(uint64(i))
		l.done <- outcome[*Quoted]{&q, proofErr}
	}
}

func (o *owner) quoteTree(ctx context.Context, batch []*leaf) (*Quoted, *quote.Tree, error) {
	leaves := make([][]byte, len(batch))
	for i, l := range batch {
		leaves[i] = l.link.Leaf(l.challenge)
	}
	tree, err := quote.NewTree(leaves)
	if err != nil {
		return nil, nil, err
	}
	q, values, err := guest.QuotePCRs(ctx, o.tpm, o.ak, quote.HostQualifier(tree.Size(), tree.Root()), o.selection)
	if err != nil {
		return nil, nil, err
	}
	return &Quoted{Quote: q, PCRs: values}, tree, nil
}

// quote queues a leaf and waits for its quote. When the context ends first, the
// leaf stays in its batch and disturbs nobody.
func (o *owner) quote(ctx context.Context, challenge []byte, link quote.Link) (*Quoted, error) {
	done := make(chan outcome[*Quoted], 1)
	select {
	case o.leaves <- &leaf{ctx, challenge, link, done}:
	default:
		return nil, errBusy
	}
	return await(ctx, o, done)
}

// activate opens a credential for the host's own keys, the only ones it is ever
// asked to use.
func (o *owner) activate(ctx context.Context, c Credential) ([]byte, error) {
	return queue(ctx, o, func(ctx context.Context) ([]byte, error) {
		return o.tpm.ActivateCredential(ctx, o.ak, o.ek, c.IDObject, c.EncryptedSecret)
	})
}

// read reads the PCRs of the selection.
func (o *owner) read(ctx context.Context) (quote.PCRs, error) {
	return queue(ctx, o, func(ctx context.Context) (quote.PCRs, error) {
		return o.tpm.ReadPCRs(ctx, o.selection)
	})
}

// queue has the owner do a task, unless nobody waits for it any more when its
// turn comes.
func queue[V any](ctx context.Context, o *owner, task func(context.Context) (V, error)) (V, error) {
	done := make(chan outcome[V], 1)
	select {
	case o.tasks <- func(work context.Context) {
		if ctx.Err() == nil {
			v, err := task(work)
			done <- outcome[V]{v, err}
		}
	}:
	default:
		var none V
		return none, errBusy
	}
	return await(ctx, o, done)
}

// await waits for an outcome, the caller's end or the service's.
func await[V any](ctx context.Context, o *owner, done <-chan outcome[V]) (V, error) {
	var none V
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, fmt.Errorf("wait for the host's TPM: %w", ctx.Err())
	case <-o.stopped:
		return none, errStopping
	}
}
