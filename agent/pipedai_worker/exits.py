"""Defines the program's exit codes, and the exception that carries a code and a sentence."""

from __future__ import annotations

OK = 0
ERROR = 1
BAD_CONFIG = 2
DEAD_TOKEN = 3
NOT_OUR_API = 4
ALREADY_RUNNING = 5


class Exit(Exception):  # noqa: N818 - not always an error
    """Raised to end the program. Its sentence is logged, and `code` is the exit code."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
