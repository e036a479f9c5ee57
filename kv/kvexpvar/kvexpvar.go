// Package kvexpvar shows the figures of a store among the variables of a process, on /debug/vars:
//
//	expvar.Publish("sessions", kvexpvar.Var(store))
//
// The names are those of [kv.Stats.Figures].
package kvexpvar

import (
	"expvar"

	"github.com/mmapkv/mmapkv/kv"
)

// Var returns a variable that is a JSON object: the figures of s at the moment in which it is read,
// each a number under its name. Several goroutines may read it at once; it costs one Stats. Of a
// store that is closed it has corruptions_total alone: a published variable cannot be withdrawn.
func Var(s *kv.Store) expvar.Var {
	return expvar.Func(func() any {
		st := s.Stats()
		figures := map[string]int64{}
		for _, f := range st.Figures() {
			figures[f.Name] = f.Value
		}
		return figures
	})
}
