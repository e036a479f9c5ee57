package codec

// DecodeSlowly lets tests compare the two ways through Decode.
var DecodeSlowly = decodeSlowly
