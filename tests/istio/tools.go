//go:build tools

// Package istio names the programs that images.sh builds, so that `go mod tidy` keeps what they need.
package istio

import (
	_ "github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin"
	_ "istio.io/istio/istioctl/cmd/istioctl"
	_ "istio.io/istio/pilot/cmd/pilot-agent"
	_ "istio.io/istio/pilot/cmd/pilot-discovery"
)
