package main

import (
	"cmp"
	"slices"

	"github.com/mmapkv/mmapkv/kv"
)

// largest keeps the keys with the largest records, in descending order.
type largest struct {
	most int // how many
	rows []largeKey
}

type largeKey struct {
	key                     []byte // owned
	recordBytes, valueBytes int64
	off                     int64
}

func (l *largest) add(r *kv.Record) {
	full := len(l.rows) == l.most
	if full && r.Len <= l.rows[l.most-1].recordBytes {
		return
	}
	at, _ := slices.BinarySearchFunc(l.rows, r.Len, func(row largeKey, n int64) int {
		// Behind its equals: those that came first stay first.
		return cmp.Or(cmp.Compare(n, row.recordBytes), -1)
	})
	if full {
		l.rows = l.rows[:l.most-1]
	}
	l.rows = slices.Insert(l.rows, at, largeKey{slices.Clone(r.Key), r.Len, int64(len(r.Value)), r.Off})
}
