"""Settles the output of a run: it must be there, be small enough, and fit the trigger's schema."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

from pipedai_worker.outcome import ABSENT, CLIENT, FAILED, INFRA, Outcome, storable

LARGEST_BYTES = 64 * 1024
# The checking process may use so much processor time, as patterns and references can be hostile. It may take
# longer than that on a busy machine.
CPU_SECONDS, LONGEST_SECONDS = 5, 30.0
LONGEST_SENTENCE = 200

CHECKER = "pipedai_worker.schema_check"


def settle(success: Outcome, schema: Any, output: Any) -> Outcome:
    """Return the outcome of a program that succeeded with this output; `ABSENT` stands for none.

    Without a schema (None), the outcome stays a success, and has the output if that is small enough. With one,
    an output that is missing, too large or wrong makes it the client's failure.
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
        complaint = check(schema, output)
        if complaint is not None:
            return _failed(success, complaint.sentence, complaint.fault_class)
    return replace(success, output=output)


class Complaint:
    """Why an output was not accepted: a sentence, and whose fault it is."""

    def __init__(self, sentence: str, fault_class: str = CLIENT) -> None:
        if len(sentence) > LONGEST_SENTENCE:
            sentence = sentence[: LONGEST_SENTENCE - 1] + "…"
        self.sentence = sentence
        self.fault_class = fault_class


def check(schema: Any, output: Any) -> Complaint | None:
    """Check the output in a process of its own. Return None if it fits the schema."""
    try:
        checked = subprocess.run(
            [sys.executable, "-m", CHECKER, str(CPU_SECONDS)],
            input=json.dumps({"schema": schema, "output": output}).encode(),
            capture_output=True,
            timeout=LONGEST_SECONDS,
            check=False,
            # The checker imports what this process can import, and gets nothing else of its environment.
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
        if checked.returncode < 0:
            # Its limits of time and memory end it by a signal.
            return Complaint("The output could not be checked against its schema in time.")
        return Complaint("The output could not be checked: the checker failed.", INFRA)
    if answer.get("missing"):
        return Complaint("The worker lacks the package jsonschema to check the output.", INFRA)
    sentence = answer.get("sentence")
    return Complaint(str(sentence)) if sentence else None


def size_of(output: Any) -> int | None:
    """Return the length of storable JSON, written compactly in UTF-8, or None if JSON can't hold it."""
    try:
        text = json.dumps(output, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError, TypeError):
        return None
    return len(text.encode())


def _failed(success: Outcome, sentence: str, fault_class: str = CLIENT) -> Outcome:
    return replace(
        success,
        status=FAILED,
        fault_class=fault_class,
        short_message=sentence,
        error_message=f"{sentence}\n{success.short_message}",
    )
