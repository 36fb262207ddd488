"""The exception of a benchmark that can't continue."""

from testing.processes.failure import ProcessFailed


class BenchFailed(ProcessFailed):
    """Something keeps the benchmark from continuing. The message is one sentence for the developer."""
