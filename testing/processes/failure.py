"""The exception of a program outside of a test that can't continue."""


class ProcessFailed(Exception):  # noqa: N818
    """A process that the program needs did not do its part. The message is one sentence for the developer."""
