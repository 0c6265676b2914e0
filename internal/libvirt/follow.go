package libvirt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"

	"github.com/deepattest/deepattest/quote"
)

// Limits of waiting for the daemon.
const (
	callLimit    = 5 * time.Second // for one round of questions
	firstPause   = 500 * time.Millisecond
	longestPause = 10 * time.Second
)

var errLost = errors.New("the connection to the daemon is lost")

// Run follows the daemon until the context ends, and connects again whenever it is
// lost. In between the registry knows nothing.
func (r *Registry) Run(ctx context.Context) {
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, longestPause) {
		began := r.o.Now()
		err := r.follow(ctx)
		r.forget(err)
		if ctx.Err() != nil {
			return
		}
		r.o.Log(fmt.Sprintf("libvirt: %v; no VM is vouched for until it is back", err))
		if r.o.Now().Sub(began) > longestPause {
			pause = firstPause
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// follow connects, and keeps the registry as the daemon says until that fails.
func (r *Registry) follow(ctx context.Context) error {
	path, err := r.socket()
	if err != nil {
		return err
	}
	conn, err := (&net.Dialer{Timeout: callLimit}).DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	// go-libvirt's calls have no limits of their own: a closed connection ends them.
	watchdog := time.AfterFunc(callLimit, func() { conn.Close() })
	defer watchdog.Stop()

	l := golibvirt.NewWithDialer(dialers.NewAlreadyConnected(conn))
	if err := l.ConnectToURI(golibvirt.ConnectURI(r.driver)); err != nil {
		return fmt.Errorf("%s at %s: %w", r.driver, path, err)
	}
	gone := l.Disconnected()
	defer func() { conn.Close(); <-gone }()
	following, stop := context.WithCancel(ctx)
	events, err := l.LifecycleEvents(following)
	if err != nil {
		stop()
		return fmt.Errorf("events of %s: %w", path, err)
	}
	defer func() {
		stop()
		conn.Close()
		for range events { // the sender waits until its events are taken
		}
	}()
	r.o.Log(fmt.Sprintf("libvirt: following %s at %s", r.driver, path))
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	var vms map[quote.UUID]domain
	for {
		watchdog.Reset(callLimit)
		at := r.o.Now()
		if vms, err = running(l, vms); err != nil {
			return err
		}
		watchdog.Stop()
		r.know(vms, at)
		select {
		case e, ok := <-events:
			if !ok {
				return errLost
			}
			r.event(e)
		case <-beat.C:
		case <-gone:
			return errLost
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// event notes what happened to a VM. The VM is unknown until the daemon was asked
// what it is now.
func (r *Registry) event(e golibvirt.DomainEventLifecycleMsg) {
	vm := quote.UUID(e.Dom.UUID)
	word := ""
	switch golibvirt.DomainEventType(e.Event) {
	case golibvirt.DomainEventStarted:
		word = "started"
		if golibvirt.DomainEventStartedDetailType(e.Detail) == golibvirt.DomainEventStartedMigrated {
			word = "arrived from another host"
		}
	case golibvirt.DomainEventStopped:
		word = "stopped"
		if golibvirt.DomainEventStoppedDetailType(e.Detail) == golibvirt.DomainEventStoppedMigrated {
			word = "left for another host"
		}
	case golibvirt.DomainEventSuspended:
		word = "paused"
	case golibvirt.DomainEventResumed:
		word = "resumed"
	case golibvirt.DomainEventCrashed:
		word = "crashed"
	default: // defined, undefined and so on: nothing runs or stops
		return
	}
	r.drop(vm)
	r.o.Log(fmt.Sprintf("libvirt: VM %s (%s) %s", vm, e.Dom.Name, word))
}

// running asks for all VMs that run: not paused, as those are that arrive in a
// migration or have just left in one. before holds what need not be asked again.
func running(l *golibvirt.Libvirt, before map[quote.UUID]domain) (map[quote.UUID]domain, error) {
	list, _, err := l.ConnectListAllDomains(1, golibvirt.ConnectListDomainsActive|golibvirt.ConnectListDomainsRunning)
	if err != nil {
		return nil, fmt.Errorf("list of VMs: %w", err)
	}
	vms := make(map[quote.UUID]domain, len(list))
	for _, dom := range list {
		vm := quote.UUID(dom.UUID)
		if d, ok := before[vm]; ok && d.id == dom.ID && d.name == dom.Name {
			vms[vm] = d
			continue
		}
		text, err := l.DomainGetXMLDesc(dom, 0)
		if golibvirt.IsNotFound(err) {
			continue // stopped meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("VM %s: %w", vm, err)
		}
		d := domain{name: dom.Name, id: dom.ID}
		if d.vtpm, err = vtpmOf(text); err != nil {
			return nil, fmt.Errorf("VM %s: XML: %w", vm, err)
		}
		vms[vm] = d
	}
	return vms, nil
}
