"""Runs management commands and kills them with SIGKILL at one of their SQL statements, so that others can go on.

    python -m testing.processes.killed_command

Each line of stdin is a JSON list of commands that run at once, each in a fork, which is as good as a process that has
imported all of Django anew. A command is a list: master keys, number of the statement, "before" or "after" it, name,
arguments. One with fewer statements runs to its end. The answer is a line: a JSON list of exit codes and outputs.
"""

import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import IO, Any

import django


def main() -> None:
    """Carries out the lines of stdin."""
    django.setup()
    for line in sys.stdin:
        begun = [_begin(*command) for command in json.loads(line)]
        sys.stdout.write(json.dumps([_ended(*each) for each in begun]) + "\n")
        sys.stdout.flush()


def _begin(master_keys: list[str], statement: int, when: str, *command: str) -> tuple[int, IO[str]]:
    """Calls the command in a fork, and returns the fork's id and the file with its output."""
    output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - `_ended` closes it.
    if pid := os.fork():
        return pid, output
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    code = 1
    try:
        _call(master_keys, statement, when, *command)
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _ended(pid: int, output: IO[str]) -> tuple[int, str]:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with output:
        output.seek(0)
        return code, output.read()


def _call(master_keys: list[str], statement: int, when: str, *command: str) -> None:
    """Calls the command, and kills this process before or after the command's statement number `statement`."""
    from django.core.management import call_command
    from django.db import connection
    from django.test import override_settings

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

    with override_settings(MASTER_KEYS=master_keys), connection.execute_wrapper(count):
        call_command(*command)


if __name__ == "__main__":
    main()
