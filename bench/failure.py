"""The exception of a benchmark that can't continue."""


class BenchFailed(Exception):  # noqa: N818
    """Something keeps the benchmark from continuing. The message is one sentence for the developer."""
