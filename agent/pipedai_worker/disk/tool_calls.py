"""Keeps one run's tool calls in a file, without arguments and results, so that they are known after a crash.

A `begin` is on disk before its call is sent. An `end` is not synced: after a crash its call may count as one without an
answer, which is safe. Now and then a summary replaces the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipedai_worker.disk import durable
from pipedai_worker.redact import Redactor
from pipedai_worker.running.outcome import iso
from pipedai_worker.values import parse

# What the answer to a tool call said. A call without an answer is `unknown`.
OK, ERROR, UNKNOWN = "ok", "error", "unknown"
# What a call may change, by the server's own annotation of its tool.
NO_EFFECT, IDEMPOTENT, POSSIBLE = "none", "idempotent", "possible"
LONGEST_LIST = 500
LONGEST_TOOL_NAME = LONGEST_CALL_ID = 200
# The name of a tool is searched for secrets before it is cut. A longer name than this is dropped unsearched.
LONGEST_SEARCHED = 64 * 1024
# Stands for the name of a tool in a call that names none. The API takes no empty name.
UNNAMED = "(unnamed)"
# The file is replaced by a summary when it has grown by this many bytes.
SUMMARY_AFTER_BYTES = 256 * 1024

# Control characters and surrogates, which the API's database can't hold or a page can't show.
_UNFIT = dict.fromkeys((*range(32), 127, *range(55296, 57344)))


@dataclass
class Call:
    """A tool call that has begun. The code that learns that it has ended passes it to `ToolCalls.end()`."""

    number: int
    effect: str
    started: float = field(default_factory=time.monotonic)
    ended: bool = False


@dataclass
class RecordedCalls:
    """What a file of tool calls says: the counts, and the first 500 calls."""

    total: int = 0
    effects: int = 0
    answered: int = 0
    items: list[dict[str, Any]] = field(default_factory=list)

    def take(self, line: dict[str, Any]) -> None:
        """Apply one line of the file. Raises KeyError, TypeError or ValueError if the line is not one of ours."""
        if line["is"] == "summary":
            self.total, self.effects = int(line["total"]), int(line["effects"])
            self.answered, self.items = int(line["answered"]), list(line["items"])
        elif line["is"] == "begin":
            self.total += 1
            self.effects += line["effect"] == POSSIBLE
            if len(self.items) < LONGEST_LIST:
                told: dict[str, Any] = {name: str(line[name]) for name in ("at", "tool", "effect")}
                told["callId"] = line.get("callId")
                if line.get("before") is True:
                    told["before"] = True
                    # A look only reads, so one without an answer must not keep its run from being retried.
                    self.answered += 1
                self.items.append({**told, "durationMs": None, "outcome": UNKNOWN})
        elif line["is"] == "end":
            # A look is among the first calls, and its beginning has counted it.
            number = int(line["call"])
            is_listed = number < len(self.items)
            self.answered += not (is_listed and self.items[number].get("before"))
            if is_listed:
                outcome = {"outcome": str(line["outcome"]), "durationMs": int(line["ms"])}
                self.items[number] = {**self.items[number], **outcome}

    def summary(self) -> dict[str, Any]:
        return {"is": "summary", **asdict(self)}

    def counts(self) -> dict[str, int]:
        """Return `total`, `effects` (calls that may change something) and `unknown` (unanswered, but no looks)."""
        unknown = self.total - self.answered
        return {"total": self.total, "effects": self.effects, "unknown": unknown}

    def listed(self) -> list[dict[str, Any]]:
        return [dict(item) for item in self.items]


class ToolCalls:
    """One run's tool calls. Safe to use from several threads."""

    def __init__(self, path: Path, redactor: Redactor | None = None) -> None:
        """Make the file, mode 0600, in which `redactor` hides secrets. Raises FileExistsError, and OSError."""
        self._path = path
        self._redactor = redactor or Redactor()
        # Guards the file. A thread may hold this lock as long as a write to the disk takes.
        self._lock = threading.Lock()
        # Guards only `_recorded`, the calls in memory. A heartbeat tells their counts, and must not wait for a disk
        # that hangs, because the run would then lose its lease.
        self._telling = threading.Lock()
        self._recorded = RecordedCalls()
        self._file = durable.create(path)
        durable.sync_directory(path.parent)
        self._grown = 0
        # True if the last line could not be written as a whole. The next line then begins after a line end.
        self._torn = False

    @staticmethod
    def read(path: Path) -> RecordedCalls:
        """Return what a killed worker's file says. A last line that is cut off was not sent. Raises OSError."""
        story = RecordedCalls()
        with contextlib.suppress(FileNotFoundError):
            for line in path.read_bytes().splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    story.take(parse(line))
        return story

    def begin(
        self, tool: str, effect: str, call_id: str | None = None, *, before: bool = False
    ) -> Call:
        """Write down that this tool is about to be called: by the agent, or `before` it is started. This is on the disk
        when `begin` returns. Raises OSError.

        `call_id` is the id that the run's events have of the call.
        """
        # A character that is left out might stand in the middle of a secret, so it is left out first.
        name = tool.translate(_UNFIT) if len(tool) <= LONGEST_SEARCHED else ""
        line = {
            "is": "begin",
            "at": iso(time.time()),
            "tool": self._redactor.redact(name)[:LONGEST_TOOL_NAME] or UNNAMED,
            "effect": effect,
            "callId": call_id and self._redactor.redact(call_id.translate(_UNFIT)),
            **({"before": True} if before else {}),
        }
        with self._lock:
            self._write(line)
            with self._telling:
                number = self._recorded.total
                self._recorded.take(line)
            os.fsync(self._file)
        return Call(number, effect)

    def end(self, call: Call, outcome: str) -> None:
        """Write down what the call's answer said: OK or ERROR. Only the first end of a call counts. Raises OSError."""
        if outcome not in {OK, ERROR}:
            raise ValueError("A call without an answer has no end.")
        milliseconds = round((time.monotonic() - call.started) * 1000)
        with self._lock:
            if call.ended:
                return
            call.ended = True
            line = {"is": "end", "call": call.number, "outcome": outcome, "ms": milliseconds}
            with self._telling:
                self._recorded.take(line)
            self._write(line)
            if self._grown > SUMMARY_AFTER_BYTES:
                file = durable.replace_by(self._path, _line(self._recorded.summary()))
                os.close(self._file)
                self._file, self._grown = file, 0
                # Later lines are synced to the new file, so the directory must not name the old one after a crash.
                durable.sync_directory(self._path.parent)

    def counts(self) -> dict[str, int]:
        with self._telling:
            return self._recorded.counts()

    def listed(self) -> list[dict[str, Any]]:
        with self._telling:
            return self._recorded.listed()

    def close(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _write(self, line: dict[str, Any]) -> None:
        content = b"\n" * self._torn + _line(line)
        self._torn = True
        durable.write_all(self._file, content)
        self._torn = False
        self._grown += len(content)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
