package main

import "time"

// growth adds up the records of a log by when they were written, in parts of equal time. Its size
// does not depend on how much time there is: when that outgrows the parts, each becomes twice as
// long. Clocks jump, and a damaged record may name any time: those before 1970 count as then, those
// after the year 9999 as its end.
type growth struct {
	shift uint  // a part is 1<<shift seconds
	first int64 // parts[0] begins first<<shift seconds after 1970
	parts []growthPart
}

type growthPart struct{ records, bytes int64 }

// growthMost is how many parts there are at most; as growth folds, they are more than half of it.
const growthMost = 96

// latest is the last second that RFC 3339, and so JSON, can name.
const latest = 253402300799

// nameable returns t, or the time next to it that RFC 3339 can name and that is not before 1970.
func nameable(t time.Time) time.Time { return time.Unix(min(max(t.Unix(), 0), latest), 0) }

// add counts a record. It takes O(growthMost), or O(1) if the time lies within those before.
func (g *growth) add(written time.Time, n int64) {
	at := nameable(written).Unix()
	if len(g.parts) == 0 {
		g.parts, g.first = make([]growthPart, 1, growthMost), at>>g.shift
	}
	for {
		first, last := min(g.first, at>>g.shift), max(g.first+int64(len(g.parts))-1, at>>g.shift)
		if last-first < growthMost {
			g.extend(first, last)
			break
		}
		g.fold()
	}
	p := &g.parts[at>>g.shift-g.first]
	p.records, p.bytes = p.records+1, p.bytes+n
}

// extend makes the parts those from first to last, which the present ones lie in.
func (g *growth) extend(first, last int64) {
	old, before := len(g.parts), int(g.first-first)
	if before == 0 && int64(old) == last-first+1 {
		return
	}
	g.parts = g.parts[:last-first+1]
	clear(g.parts[old:])
	copy(g.parts[before:], g.parts[:old])
	clear(g.parts[:before])
	g.first = first
}

// fold makes each part twice as long.
func (g *growth) fold() {
	first := g.first >> 1
	var sums [growthMost]growthPart
	for i, p := range g.parts {
		sum := &sums[(g.first+int64(i))>>1-first]
		sum.records, sum.bytes = sum.records+p.records, sum.bytes+p.bytes
	}
	last := (g.first + int64(len(g.parts)) - 1) >> 1
	g.parts = append(g.parts[:0], sums[:last-first+1]...)
	g.shift, g.first = g.shift+1, first
}

// growthRow is what was written from one time until before another.
type growthRow struct {
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	Records int64     `json:"records"`
	Bytes   int64     `json:"bytes"` // of the records
}

// rows returns the parts in order, those in which nothing was written too.
func (g *growth) rows() []growthRow {
	rows := []growthRow{}
	edge := func(part int64) time.Time { return nameable(time.Unix(part<<g.shift, 0)).UTC() }
	for i, p := range g.parts {
		rows = append(rows, growthRow{edge(g.first + int64(i)), edge(g.first + int64(i) + 1), p.records, p.bytes})
	}
	return rows
}
