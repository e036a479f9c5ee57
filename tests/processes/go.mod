module github.com/mmapkv/mmapkv/tests/processes

go 1.26.0

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/mmapkv/mmapkv v0.0.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/mmapkv/mmapkv => ../..
