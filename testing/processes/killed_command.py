"""Runs a management command and kills it with SIGKILL at one of its SQL statements, so that another can go on.

    python -m testing.processes.killed_command STATEMENT before|after COMMAND [ARGUMENT…]

A command with fewer statements runs to its end.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import django


def main(statement: int, when: str, *command: str) -> None:
    """Calls the command, and kills this process before or after the command's statement number `statement`."""
    django.setup()
    from django.core.management import call_command
    from django.db import connection

    sent = 0

    def count(execute: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal sent
        sent += 1
        if sent == statement and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = execute(*arguments)
        if sent == statement:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    with connection.execute_wrapper(count):
        call_command(*command)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
