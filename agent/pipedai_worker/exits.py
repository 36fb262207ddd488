"""Defines the worker program's exit codes, and the exception `Exit` that ends the program with one of them."""

from __future__ import annotations

OK = 0
ERROR = 1
BAD_CONFIG = 2
DEAD_TOKEN = 3
NOT_OUR_API = 4
ALREADY_RUNNING = 5


class Exit(Exception):  # noqa: N818 - not always an error
    """Raise this to end the program: its sentence is logged, and `code` is the program's exit code."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
