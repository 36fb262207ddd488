"""Stores, reads, streams and drops the events of runs, which have what the run's CLI reported."""
