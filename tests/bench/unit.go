//go:build linux && !386 && !arm

package main

import (
	"fmt"
	"strconv"
	"strings"
)

// unit is how a figure is written.
type unit int

const (
	plain unit = iota
	nanoseconds
	perSecond
	bytesOf
	times
)

// format writes v with three digits that count.
func (u unit) format(v float64) string {
	steps := func(base float64, names ...string) string {
		i := 0
		for i < len(names)-1 && v >= base*0.9995 {
			v /= base
			i++
		}
		return strings.TrimSpace(digits(v) + " " + names[i])
	}
	switch u {
	case nanoseconds:
		return steps(1000, "ns", "µs", "ms", "s")
	case bytesOf:
		return steps(1024, "B", "KiB", "MiB", "GiB")
	case perSecond:
		return steps(1000, "", "k", "M")
	case times:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return digits(v)
}

// tick is format for round numbers.
func (u unit) tick(v float64) string {
	number, name, _ := strings.Cut(u.format(v), " ")
	if whole, zeros, ok := strings.Cut(number, "."); ok && strings.Trim(zeros, "0") == "" {
		number = whole
	}
	return strings.TrimSpace(number + " " + name)
}

// digits writes v with three digits that count, and no more.
func digits(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 99.95 || v <= -99.95:
		return fmt.Sprintf("%.0f", v)
	case v >= 9.995 || v <= -9.995:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// count writes a number of keys as people say it.
func count(n int64) string {
	switch {
	case n >= 1e6 && n%1e6 == 0:
		return fmt.Sprintf("%d M", n/1e6)
	case n >= 1e3 && n%1e3 == 0:
		return fmt.Sprintf("%d k", n/1e3)
	}
	return fmt.Sprint(n)
}
