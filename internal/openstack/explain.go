package openstack

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gophercloud/gophercloud/v2"
)

// StatusError is an answer of the cloud that is not what was asked for.
type StatusError struct {
	Status  int    // of HTTP
	Doing   string // what was tried
	Message string // of the cloud, made printable
	Action  string // what to do, and who
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("cannot %s: the cloud answers %d", e.Doing, e.Status)
	if e.Message != "" {
		s += " (" + e.Message + ")"
	}
	return s + ": " + e.Action
}

// explain puts an error of gophercloud into a tenant's words. doing completes
// "cannot ...".
func explain(err error, service, doing string) error {
	var code gophercloud.ErrUnexpectedResponseCode
	var noEndpoint *gophercloud.ErrEndpointNotFound
	var noEndpointValue gophercloud.ErrEndpointNotFound
	switch {
	case err == nil:
		return nil
	case errors.As(err, &code):
		return &StatusError{Status: code.Actual, Doing: doing, Message: message(code.Body), Action: action(code.Actual, service)}
	case errors.As(err, &noEndpoint), errors.As(err, &noEndpointValue):
		return fmt.Errorf("cannot %s: the cloud's catalog has no %s service for this region and interface; check OS_REGION_NAME, or ask the cloud operator: %w", doing, service, errNoService)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("cannot %s: the cloud did not answer in time: %w", doing, err)
	}
	return fmt.Errorf("cannot %s: %w", doing, err)
}

// errNoService marks a service that the cloud does not have.
var errNoService = errors.New("no such service")

func action(status int, service string) string {
	switch {
	case status == http.StatusUnauthorized:
		return "it does not accept these credentials; the tenant checks that they are complete and not expired or deleted"
	case status == http.StatusForbidden:
		return "these credentials may not do this in this project; the tenant asks the cloud operator for the role, or takes an application credential whose access rules allow it"
	case status == http.StatusNotFound:
		return "it is not there, or belongs to another project; the tenant checks the uuid, project and region"
	case status == http.StatusNotAcceptable:
		return "it does not know the API microversion that is needed; the cloud operator would have to update the " + service + " service"
	case status == http.StatusRequestEntityTooLarge || status == http.StatusTooManyRequests:
		return "it asks to slow down, or a quota is full; the tenant tries later or raises the quota"
	case status >= 500:
		return "its " + service + " service fails; the cloud operator must look into it"
	case status >= 300 && status < 400:
		return "a redirect, which is not followed; the tenant checks the address"
	}
	return "the request does not suit it"
}

// message finds the text in an error body. Services wrap it in different ways:
// {"itemNotFound": {"message": ...}}, {"error": {"message": ...}}, {"errors": [{"detail": ...}]}.
func message(body []byte) string {
	var outer map[string]jsontext.Value
	if json.Unmarshal(body, &outer) != nil {
		return ""
	}
	for _, name := range []string{"errors", "error", "badRequest", "unauthorized", "forbidden", "itemNotFound", "overLimit", "computeFault", "conflictingRequest"} {
		value, ok := outer[name]
		if !ok {
			continue
		}
		var one struct {
			Message string `json:"message"`
			Detail  string `json:"detail"`
		}
		if value.Kind() == '[' {
			var many []jsontext.Value
			if json.Unmarshal(value, &many) != nil || len(many) == 0 {
				continue
			}
			value = many[0]
		}
		if json.Unmarshal(value, &one) == nil {
			return printable(first(one.Message, one.Detail))
		}
	}
	return ""
}

// printable makes text of the cloud fit for a terminal and a log line.
func printable(text string) string {
	const limit = 200
	text = strings.ToValidUTF8(text, "?")
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !strconv.IsPrint(r):
			return '?'
		}
		return r
	}, text))
}
