package kvotel_test

import (
	"context"
	"fmt"
	"log"

	"github.com/mmapkv/mmapkv/kv"
	"github.com/mmapkv/mmapkv/kv/kvotel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

func ExampleMetrics() {
	reader := metric.NewManualReader() // a program has an exporter here
	metrics, err := kvotel.New(metric.NewMeterProvider(metric.WithReader(reader)))
	if err != nil {
		log.Fatal(err)
	}
	name := attribute.String("mmapkv.store", "sessions")
	store, err := kv.OpenMem(&kv.Options{Hooks: metrics.Hooks(nil, name)})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	registration, err := metrics.Observe(store, name)
	if err != nil {
		log.Fatal(err)
	}
	defer registration.Unregister()
	if err := store.Put([]byte("alice"), []byte("1")); err != nil {
		log.Fatal(err)
	}

	var collected metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &collected); err != nil {
		log.Fatal(err)
	}
	for _, m := range collected.ScopeMetrics[0].Metrics {
		if m.Name == "mmapkv.keys" {
			point := m.Data.(metricdata.Gauge[int64]).DataPoints[0]
			fmt.Println(m.Name, point.Attributes.Encoded(attribute.DefaultEncoder()), point.Value)
		}
	}
	// Output: mmapkv.keys mmapkv.store=sessions 1
}
