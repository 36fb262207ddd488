"""Prometheus metrics of the web and the scheduler processes. docs/metrics.md lists them all.

Without METRICS_TOKEN no module of this package is imported except `directory`, which gunicorn's hooks use.
"""
