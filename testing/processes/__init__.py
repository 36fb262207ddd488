"""Starts the service's own processes and other programs for a test, and calls that race or are killed."""
