"""Prometheus metrics of the web and the scheduler processes. docs/metrics.md lists them all.

Without METRICS_TOKEN no module here is imported, except `directory`, which gunicorn's hooks use.
"""
