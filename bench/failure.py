"""The one exception of a benchmark that can't go on."""


class BenchFailed(Exception):  # noqa: N818
    """Something is in the way or went wrong; the message is one sentence for the developer."""
