"""Prometheus metrics of the web and the scheduler processes; docs/metrics.md lists them all.

Nothing here is imported unless METRICS_TOKEN is set, but for `directory`, which gunicorn's hooks call.
"""
