"""Stores, reads, streams and drops the events of runs, which tell what the run's CLI told."""
