// Package kvotel measures stores for OpenTelemetry: how long syncs, growth and compactions take,
// by [kv.Hooks], and the figures of each store. It is a module of its own, so that who does not
// import it does not get OpenTelemetry.
//
//	metrics, err := kvotel.New(nil)
//	...
//	name := attribute.String("mmapkv.store", "sessions")
//	store, err := kv.Open(path, &kv.Options{Hooks: metrics.Hooks(nil, name)})
//	...
//	registration, err := metrics.Observe(store, name)
//
// # Metrics
//
//   - mmapkv.sync.duration, mmapkv.growth.duration, mmapkv.compaction.duration: histograms, in
//     seconds. Of those that failed, error.type is set.
//   - mmapkv.sync.io: bytes of the log that were to be synced.
//   - mmapkv. and the name of each of [kv.Stats.Figures], without its _total, and without its
//     _bytes, which is the unit: so that exporters for Prometheus can make the names of it that
//     kvtool stats --prom prints.
package kvotel

import (
	"context"
	"strings"
	"time"

	"github.com/mmapkv/mmapkv/kv"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Metrics are the instruments, for any number of stores, which their attributes tell apart. Several
// goroutines may use it.
type Metrics struct {
	meter                   metric.Meter
	sync, growth, compacted metric.Float64Histogram
	synced                  metric.Int64Counter
	figures                 map[string]metric.Int64Observable // by kv.Figure's name
}

// bounds of a duration's buckets, in seconds: from a sync of fast memory to a compaction.
var bounds = []float64{1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1, 3, 10, 30}

// New makes the instruments. Without a provider they are the global one's: otel.GetMeterProvider.
func New(provider metric.MeterProvider) (*Metrics, error) {
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	m := &Metrics{meter: provider.Meter("github.com/mmapkv/mmapkv/kv/kvotel"), figures: map[string]metric.Int64Observable{}}
	var err error
	for _, h := range []struct {
		to         *metric.Float64Histogram
		name, help string
	}{
		{&m.sync, "mmapkv.sync.duration", "Time of a sync of the log."},
		{&m.growth, "mmapkv.growth.duration", "Time of a growth of the file."},
		{&m.compacted, "mmapkv.compaction.duration", "Time of a compaction."},
	} {
		if *h.to, err = m.meter.Float64Histogram(h.name, metric.WithUnit("s"), metric.WithDescription(h.help), metric.WithExplicitBucketBoundaries(bounds...)); err != nil {
			return nil, err
		}
	}
	if m.synced, err = m.meter.Int64Counter("mmapkv.sync.io", metric.WithUnit("By"), metric.WithDescription("Bytes of the log that were to be synced.")); err != nil {
		return nil, err
	}
	for _, f := range (&kv.Stats{Generation: 1}).Figures() {
		if m.figures[f.Name], err = m.observable(&f); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) observable(f *kv.Figure) (metric.Int64Observable, error) {
	name, help := "mmapkv."+strings.TrimSuffix(f.Name, "_total"), metric.WithDescription(f.Help)
	if f.Counter {
		return m.meter.Int64ObservableCounter(name, help)
	}
	if gauge, ok := strings.CutSuffix(name, "_bytes"); ok {
		return m.meter.Int64ObservableGauge(gauge, help, metric.WithUnit("By"))
	}
	return m.meter.Int64ObservableGauge(name, help)
}

// Hooks returns hooks for the kv.Options of a store, which also call those of next, if there is
// one. What they record has attrs.
func (m *Metrics) Hooks(next *kv.Hooks, attrs ...attribute.KeyValue) *kv.Hooks {
	var hooks kv.Hooks
	if next != nil {
		hooks = *next
	}
	well := metric.WithAttributeSet(attribute.NewSet(attrs...))
	failed := metric.WithAttributeSet(attribute.NewSet(append(attrs[:len(attrs):len(attrs)], attribute.String("error.type", "_OTHER"))...))
	record := func(h metric.Float64Histogram, took time.Duration, err error) {
		how := well
		if err != nil {
			how = failed
		}
		h.Record(context.Background(), took.Seconds(), how)
	}
	synced, grown, compacted := hooks.Synced, hooks.Grown, hooks.Compacted
	hooks.Synced = func(bytes int64, took time.Duration, err error) {
		record(m.sync, took, err)
		m.synced.Add(context.Background(), bytes, well)
		if synced != nil {
			synced(bytes, took, err)
		}
	}
	hooks.Grown = func(from, to int64, took time.Duration, err error) {
		record(m.growth, took, err)
		if grown != nil {
			grown(from, to, took, err)
		}
	}
	hooks.Compacted = func(info kv.CompactInfo, err error) {
		record(m.compacted, info.Took, err)
		if compacted != nil {
			compacted(info, err)
		}
	}
	return &hooks
}

// Observe has the figures of s collected with attrs, which should tell it from other stores, each
// time that metrics are: that costs one Stats. Unregister what it returns before s is closed: of a
// closed store there is corruptions_total alone.
func (m *Metrics) Observe(s *kv.Store, attrs ...attribute.KeyValue) (metric.Registration, error) {
	with := metric.WithAttributeSet(attribute.NewSet(attrs...))
	instruments := make([]metric.Observable, 0, len(m.figures))
	for _, o := range m.figures {
		instruments = append(instruments, o)
	}
	return m.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		st := s.Stats()
		for _, f := range st.Figures() {
			o.ObserveInt64(m.figures[f.Name], f.Value, with)
		}
		return nil
	}, instruments...)
}
