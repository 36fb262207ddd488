"""Prometheus metrics of the processes (docs/metrics.md). Without METRICS_TOKEN only `directory` is imported."""
