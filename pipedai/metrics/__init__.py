"""Prometheus metrics of the web and the scheduler processes. docs/metrics.md lists them all.

Without METRICS_TOKEN none of these modules is imported, except `directory`, which gunicorn's hooks use.
"""
