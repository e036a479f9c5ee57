package kvotel

import (
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/mmapkv/mmapkv/kv/kvtest"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// collect returns what there is now, by name.
func collect(t *testing.T, reader sdk.Reader) map[string]metricdata.Metrics {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	byName := map[string]metricdata.Metrics{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			byName[m.Name] = m
		}
	}
	return byName
}

// Goal: every figure of a store is a metric of the right kind and unit, of now, under the store's
// attributes; and none is left when it is unregistered.
// Method: two stores of different sizes, as a reader of the SDK sees them.
func TestObserve(t *testing.T) {
	reader := sdk.NewManualReader()
	m, err := New(sdk.NewMeterProvider(sdk.WithReader(reader)))
	if err != nil {
		t.Fatal(err)
	}
	for n, name := range []string{"a", "b"} {
		s := kvtest.Open(t, nil)
		for k := range n + 1 {
			if err := s.Put([]byte{byte(k)}, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
		}
		registration, err := m.Observe(s, attribute.String("store", name))
		if err != nil {
			t.Fatal(err)
		}
		got := collect(t, reader)
		st := s.Stats()
		for _, f := range st.Figures() {
			metricName, counter := strings.CutSuffix("mmapkv."+f.Name, "_total")
			metricName, bytes := strings.CutSuffix(metricName, "_bytes")
			metric, ok := got[metricName]
			if !ok || bytes != (metric.Unit == "By") || metric.Description != f.Help {
				t.Errorf("%s: %+v", metricName, metric)
				continue
			}
			var points []metricdata.DataPoint[int64]
			switch data := metric.Data.(type) {
			case metricdata.Gauge[int64]:
				points, ok = data.DataPoints, !counter
			case metricdata.Sum[int64]:
				points, ok = data.DataPoints, counter && data.IsMonotonic
			}
			if !ok || len(points) != 1 || points[0].Value != f.Value {
				t.Errorf("%s: %+v, want %d", metricName, metric.Data, f.Value)
			} else if store, _ := points[0].Attributes.Value("store"); store.AsString() != name {
				t.Errorf("%s is of store %q, want %q", metricName, store.AsString(), name)
			}
		}
		if err := registration.Unregister(); err != nil {
			t.Fatal(err)
		}
		if left := collect(t, reader); len(left) != 0 {
			t.Errorf("left after it was unregistered: %v", left)
		}
	}
}

// Goal: syncs, growth and compactions are counted with what they took, those that fail apart; and the
// caller's own hooks are still called.
// Method: a store on a disk whose sync fails at last; what was counted, against those hooks.
func TestHooks(t *testing.T) {
	reader := sdk.NewManualReader()
	m, err := New(sdk.NewMeterProvider(sdk.WithReader(reader)))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // the file grows in the background too
	counts, bytes := map[string]uint64{}, int64(0)
	count := func(name string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			name += " failed"
		}
		counts[name]++
	}
	own := &kv.Hooks{
		Synced: func(n int64, _ time.Duration, err error) {
			count("mmapkv.sync.duration", err)
			mu.Lock()
			defer mu.Unlock()
			bytes += n
		},
		Grown:     func(_, _ int64, _ time.Duration, err error) { count("mmapkv.growth.duration", err) },
		Compacted: func(_ kv.CompactInfo, err error) { count("mmapkv.compaction.duration", err) },
	}
	disk := kvtest.NewDisk(t)
	s, err := kv.Open(disk.Path("s"), &kv.Options{Durability: kv.SyncManual, CheckpointBytes: -1, CompactAt: -1, Hooks: m.Hooks(own, attribute.String("store", "a"))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() // for a test that fails before
	value := make([]byte, 100_000)
	for range 30 {
		if err := s.Put([]byte("k"), value); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Put([]byte("k"), value); err != nil {
		t.Fatal(err)
	}
	disk.Fail(kvtest.OpSync, syscall.EIO)
	if err := s.Sync(); !errors.Is(err, kv.ErrPoisoned) {
		t.Fatalf("a sync on a broken disk: %v", err)
	}
	if err := s.Close(); !errors.Is(err, kv.ErrPoisoned) {
		t.Fatalf("closing it: %v", err)
	}

	got := collect(t, reader)
	measured := map[string]uint64{}
	for _, name := range []string{"mmapkv.sync.duration", "mmapkv.growth.duration", "mmapkv.compaction.duration"} {
		histogram, ok := got[name].Data.(metricdata.Histogram[float64])
		if !ok || got[name].Unit != "s" {
			t.Fatalf("%s: %+v", name, got[name])
		}
		for _, point := range histogram.DataPoints {
			if store, _ := point.Attributes.Value("store"); store.AsString() != "a" || point.Sum <= 0 {
				t.Errorf("%s: %+v", name, point)
			}
			outcome := ""
			if point.Attributes.HasValue("error.type") {
				outcome = " failed"
			}
			measured[name+outcome] += point.Count
		}
	}
	for _, name := range []string{"mmapkv.sync.duration", "mmapkv.sync.duration failed", "mmapkv.growth.duration", "mmapkv.compaction.duration"} {
		if counts[name] == 0 || measured[name] != counts[name] {
			t.Errorf("%s: measured %d, the hook was called %d times", name, measured[name], counts[name])
		}
	}
	if sum := got["mmapkv.sync.io"].Data.(metricdata.Sum[int64]); sum.DataPoints[0].Value != bytes {
		t.Errorf("synced %d bytes, measured %d", bytes, sum.DataPoints[0].Value)
	}
}
