module github.com/mmapkv/mmapkv/tests/device

go 1.26.0

require (
	github.com/hanwen/go-fuse/v2 v2.12.1
	github.com/mmapkv/mmapkv v0.0.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/mmapkv/mmapkv => ../..
