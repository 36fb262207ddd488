"""Runs: their state machine, their retries, and how they reach their worker."""
