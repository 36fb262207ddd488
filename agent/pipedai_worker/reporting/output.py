"""Decides whether a run's output is accepted: whether it is there, is small enough, and fits the trigger's schema."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

from pipedai_worker.redact import Redactor
from pipedai_worker.reporting.outcome import ABSENT, CLIENT, FAILED, INFRA, Outcome, storable

LARGEST_BYTES = 64 * 1024
# How many seconds of processor time the process that checks an output may use, because a schema may have patterns and
# references that take for ever. On a busy machine it may take longer, up to LONGEST_SECONDS.
CPU_SECONDS, LONGEST_SECONDS = 5, 30.0
LONGEST_SENTENCE, LONGEST_POINTER = 200, 80
# JavaScript's largest number has 309 digits. The API refuses whole numbers that are larger.
LONGEST_NUMBER = 309

CHECKER = "pipedai_worker.reporting.schema_check"


def settle(success: Outcome, schema: Any, output: Any, redactor: Redactor) -> Outcome:
    """Return the outcome of a program that succeeded with this output, or with ABSENT. If the trigger has a schema, a
    missing, too large or wrong output is a failure of the client; else too large an output is left out.
    """
    if output is ABSENT:
        if schema is None:
            return success
        return _failed(success, "There is no output, although the trigger has an output schema.")
    try:
        output = storable(output)
        size = size_of(output)
    except RecursionError:
        size = None
    if size is None or size > LARGEST_BYTES:
        if schema is None:
            return success
        return _failed(
            success,
            "The output is not JSON."
            if size is None
            else f"The output has {size} bytes of JSON, more than {LARGEST_BYTES}.",
        )
    if schema is not None:
        complaint = check(schema, output, redactor)
        if complaint is not None:
            return _failed(success, complaint.sentence, complaint.fault_class)
    return replace(success, output=output)


class Complaint:
    def __init__(self, sentence: str, fault_class: str = CLIENT) -> None:
        self.sentence = _cut(sentence, LONGEST_SENTENCE)
        self.fault_class = fault_class


def check(schema: Any, output: Any, redactor: Redactor) -> Complaint | None:
    """Check in a process of its own. Return None if it fits, else a complaint without secrets."""
    try:
        checked = subprocess.run(
            [sys.executable, "-m", CHECKER, str(CPU_SECONDS)],
            input=json.dumps({"schema": schema, "output": output}).encode(),
            capture_output=True,
            timeout=LONGEST_SECONDS,
            check=False,
            # The process can import the same modules as this one, but gets no other variable.
            cwd="/",
            env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            start_new_session=True,
        )
        answer = json.loads(checked.stdout)
    except subprocess.TimeoutExpired:
        return Complaint("The output could not be checked against its schema in time.")
    except OSError as error:
        return Complaint(f"The output could not be checked: {error.strerror}.", INFRA)
    except ValueError:
        if checked.returncode == -signal.SIGKILL:
            # Linux kills a program by SIGKILL when the machine has no memory left.
            return Complaint("The output could not be checked: the checker was killed.", INFRA)
        if checked.returncode < 0:
            # SIGXCPU ends the checker when its processor time is used up, SIGSEGV when it recurses without end.
            return Complaint("The output could not be checked against its schema in time.")
        return Complaint("The output could not be checked: the checker failed.", INFRA)
    if answer.get("missing"):
        return Complaint("The worker lacks the package jsonschema to check the output.", INFRA)
    if "misfit" in answer:
        pointer, misfit = redactor.redact(answer["pointer"]), redactor.redact(answer["misfit"])
        where = f"At {_cut(pointer, LONGEST_POINTER)}" if pointer else "As a whole"
        return Complaint(f"{where}, the output does not fit its schema: {misfit}.")
    sentence = answer.get("sentence")
    return Complaint(str(sentence)) if sentence else None


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def size_of(output: Any) -> int | None:
    """Return how many bytes the JSON has, written compactly in UTF-8; None if the API can't store it."""
    try:
        text = json.dumps(output, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        json.loads(text, parse_int=_held_int)
    except (ValueError, RecursionError, TypeError):
        return None
    return len(text.encode())


def _held_int(literal: str) -> int:
    """Raise ValueError for a number beyond JavaScript's largest, which the API refuses. The value is not needed."""
    if len(literal) > LONGEST_NUMBER or math.isinf(float(literal)):
        raise ValueError
    return 0


def _failed(success: Outcome, sentence: str, fault_class: str = CLIENT) -> Outcome:
    return replace(
        success,
        status=FAILED,
        fault_class=fault_class,
        short_message=sentence,
        error_message=f"{sentence}\n{success.short_message}",
    )
