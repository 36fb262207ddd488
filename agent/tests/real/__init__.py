"""Scenarios with the real Claude CLI: each is a run through the API, the worker and the CLI, over loopback alone."""
