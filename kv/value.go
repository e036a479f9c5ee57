package kv

import (
	"github.com/mmapkv/mmapkv/codec"
)

// Value is one value in a file of its own, such as the settings of a program. Its methods may
// be called from any number of goroutines, and each is atomic, between processes too (see
// Options.Shared).
type Value[T any] struct {
	m    *Map[string, T]
	none T // what is loaded while there is none
}

// ValueOptions are the settings of OpenValue. The zero value, and nil, are right for most programs.
type ValueOptions[T any] struct {
	// Options are those of the store.
	Options
	// Codec turns the value into bytes. Default: that which codec.Of finds, or else codec.JSON.
	Codec codec.Codec[T]
	// Default is the value as long as none was written. It is handed out as it is: where T has
	// a pointer, a map or a slice, it is for nobody to change.
	Default T
	// Migrate is called by OpenValue if the file has no value, and returns the first, such as
	// one from where the program had it before; with ok false there is none. Once there is a
	// value it is not called again. It must not use the store. Of several processes that open a
	// Shared store at once, one calls it, and none where the store is ReadOnly. Default: none.
	Migrate func() (v T, ok bool, err error)
}

// valueKey is the key of the value in the map.
const valueKey = ""

// OpenValue opens the value in the store at path, and creates the store if there is none. Close
// closes it. Errors are those of Open, ErrCodec where the value was written with another codec, and
// that of Migrate, as it is.
func OpenValue[T any](path string, opts *ValueOptions[T]) (*Value[T], error) {
	var o ValueOptions[T]
	if opts != nil {
		o = *opts
	}
	if o.Codec == nil {
		c, err := codec.Of[T]()
		if err != nil {
			c = codec.JSON[T]{}
		}
		o.Codec = c
	}
	s, err := Open(path, &o.Options)
	if err != nil {
		return nil, err
	}
	opened := false
	defer func() {
		if !opened { // by an error, or by a panic of Migrate or the codec
			s.Close()
		}
	}()
	v := &Value[T]{none: o.Default}
	if v.m, err = newMap[string, T](s, "", codec.String{}, o.Codec); err != nil {
		return nil, err
	}
	v.m.owns = true
	if err := v.migrate(o.Migrate); err != nil {
		return nil, err
	}
	opened = true
	return v, nil
}

func (v *Value[T]) migrate(from func() (T, bool, error)) error {
	if from == nil || v.m.s.opts.ReadOnly {
		return nil
	}
	if ok, err := v.m.Has(valueKey); ok || err != nil {
		return err
	}
	return v.m.compute("migrate", valueKey, func(old T, ok bool) (T, Op, error) {
		if ok {
			return old, Keep, nil // another process was first
		}
		first, ok, err := from()
		if !ok || err != nil {
			return old, Keep, err
		}
		return first, Write, nil
	})
}

// Load returns the value, which belongs to the caller, or the default if none was written. It reads
// and decodes it each time.
func (v *Value[T]) Load() (T, error) { return v.m.GetOr(valueKey, v.none) }

// Update sets the value to what fn makes of it, and returns that. If fn returns an error, which
// Update returns as it is, with a zero value, or panics, nothing happened. No other update comes between; those of
// other goroutines and processes wait while fn runs. fn may load the value, and must not update
// it.
func (v *Value[T]) Update(fn func(old T) (T, error)) (next T, err error) {
	err = v.m.compute("update", valueKey, func(old T, ok bool) (T, Op, error) {
		if !ok {
			old = v.none
		}
		var err error
		next, err = fn(old)
		return next, Write, err
	})
	if err != nil {
		var none T
		return none, err
	}
	return next, nil
}

// Sync returns after the durability point of every update that returned before.
func (v *Value[T]) Sync() error { return v.m.Sync() }

// Close closes the store, as Store.Close does.
func (v *Value[T]) Close() error { return v.m.Close() }
