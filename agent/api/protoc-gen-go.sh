#!/bin/sh
# The pinned tool of go.mod as a protoc plugin.
exec go tool protoc-gen-go
