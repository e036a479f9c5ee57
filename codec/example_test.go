package codec_test

import (
	"fmt"

	"github.com/mmapkv/mmapkv/codec"
)

func ExampleEntry() {
	p := codec.Append(nil, &codec.Entry{Key: []byte("apple"), Revision: 1, Written: 1_700_000_000, Value: []byte("red")})
	e, err := codec.Decode(p)
	fmt.Printf("%s = %s, revision %d, %v\n", e.Key, e.Value, e.Revision, err)
	value, expiry, ok := codec.Value(p)
	fmt.Printf("%s %d %v\n", value, expiry, ok)
	_, err = codec.Decode(p[:len(p)-1])
	fmt.Println(err)
	// Output:
	// apple = red, revision 1, <nil>
	// red 0 true
	// malformed entry: key or value cut short at byte 15
}

func ExampleByName() {
	c, _ := codec.ByName("int32")
	v, err := c.Parse("-7")
	fmt.Printf("%T %v %v\n", v, v, err)
	b, err := c.Append(nil, v)
	fmt.Printf("%x %v\n", b, err)
	_, err = c.Parse("seven")
	fmt.Println(err)
	// Output:
	// int32 -7 <nil>
	// 7ffffff9 <nil>
	// bytes are not those of a value: int32: strconv.ParseInt: parsing "seven": invalid syntax
}
