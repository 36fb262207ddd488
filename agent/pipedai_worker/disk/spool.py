"""Keeps what a run's program does in bounded files without secrets, for the API and for this machine."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from math import inf
from pathlib import Path
from typing import Any

from pipedai_worker.disk import durable
from pipedai_worker.disk.durable import logged
from pipedai_worker.executors.claude_names import DEFERRED, TOOL_PREFIX
from pipedai_worker.executors.watch import text_of
from pipedai_worker.redact import Redactor
from pipedai_worker.running.outcome import iso
from pipedai_worker.running.process import SHORTEST_CUT_STRING
from pipedai_worker.values import parse, parse_time, shortened, whole

# What the model says, what it thinks, the tools that it calls, and what they answer.
MESSAGE, THINKING, TOOL_CALL, TOOL_RESULT = "message", "thinking", "tool_call", "tool_result"
# What claude says of itself, and how it ended.
STATUS, RESULT = "status", "result"
# What any other program writes, and what claude writes to stderr.
STDOUT, STDERR = "stdout", "stderr"
# The last event of a run that had more events than are kept.
TRUNCATED = "truncated"

# Pieces of these streams follow each other without a gap. A piece that is too long becomes several events.
STREAMS = frozenset({STDOUT, STDERR})
# Claude writes these while a message is still being made, and the whole message afterwards.
_PARTS = frozenset({"stream_event"})


@dataclass(frozen=True)
class RunEvent:
    """One event without its number and time. Each of `texts` is a line of the event's text, and may go on where the one
    before it ended. Texts and data may still hold secrets.
    """

    type: str
    texts: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)


def read(kind: str, payload: Any) -> Iterator[RunEvent]:
    """Return the events to send for one of a program: a line of claude's stream, or a piece of other output."""
    if not isinstance(payload, dict) or kind in _PARTS:
        return
    if kind in STREAMS:
        yield RunEvent(kind, _texts(payload.get("text")))
    elif kind in {"assistant", "user"}:
        yield from _message(kind, payload)
    elif kind == "result":
        is_deferred = payload.get("terminal_reason") == DEFERRED
        text = "Claude has stopped before this call." if is_deferred else text_of(payload)
        yield RunEvent(RESULT, _texts(text), _renamed(payload, _OF_RESULT))
    elif kind == "system":
        subtype = str(payload.get("subtype"))
        sentence = _SENTENCES.get(subtype)
        told = {"subtype": subtype, **_renamed(payload, _OF_SYSTEM.get(subtype, {}))}
        yield RunEvent(STATUS, (sentence(payload),) if sentence else (), told)
    elif kind == "rate_limit_event":
        info = payload.get("rate_limit_info")
        # Claude also writes such an event while the limit is far off. It is left out.
        if isinstance(info, dict) and info.get("status") != "allowed":
            text = f"The usage limit of the model's API is {info.get('status')}."
            yield RunEvent(STATUS, (text,), {"subtype": "usage_limit", **_renamed(info, _OF_LIMIT)})
    else:
        yield RunEvent(STATUS, (), {"subtype": kind, **_renamed(payload, _OF_PROGRESS)})


def _message(role: str, event: dict[str, Any]) -> Iterator[RunEvent]:
    message = event.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    about = _renamed(event, {"parent_tool_use_id": "parentId", "error": "error"})
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    for block in content if isinstance(content, list) else []:
        if not isinstance(block, dict):
            continue
        # Claude also runs tools of the model's API, whose blocks are called `server_tool_use` and the like.
        kind = str(block.get("type"))
        said, thought = _texts(block.get("text")), _texts(block.get("thinking"))
        if kind == "text" and said:
            yield RunEvent(MESSAGE, said, {"role": role, **about})
        elif kind == "thinking" and thought:
            yield RunEvent(THINKING, thought, about)
        elif kind.endswith("tool_use"):
            tool = str(block.get("name")).removeprefix(TOOL_PREFIX)
            call = {"callId": block.get("id"), "tool": tool, "input": block.get("input")}
            yield RunEvent(TOOL_CALL, (tool,), {**call, **about})
        elif kind.endswith("tool_result"):
            answer = {"callId": block.get("tool_use_id"), "isError": block.get("is_error") is True}
            yield RunEvent(TOOL_RESULT, _texts(block.get("content")), {**answer, **about})


def _texts(content: Any) -> tuple[str, ...]:
    """Return the texts of a message's content, which is one text or a list of blocks."""
    if isinstance(content, str):
        return (content,) if content else ()
    blocks = content if isinstance(content, list) else []
    texts = (block.get("text") for block in blocks if isinstance(block, dict))
    return tuple(text for text in texts if isinstance(text, str) and text)


def _renamed(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Return the values under the names that the API's events have, without missing ones."""
    return {
        name: values[old] for old, name in names.items() if values.get(old) not in (None, "", [])
    }


_OF_RESULT = {
    "subtype": "subtype",
    "is_error": "isError",
    "num_turns": "numTurns",
    "duration_ms": "durationMs",
    "total_cost_usd": "costUsd",
    "terminal_reason": "terminalReason",
    "structured_output": "output",
}
_OF_LIMIT = {"status": "status", "resetsAt": "resetsAt", "rateLimitType": "kind"}
_OF_PROGRESS = {"tool_name": "tool", "elapsed_time_seconds": "seconds"}
_OF_SYSTEM: dict[str, dict[str, str]] = {
    "init": {"model": "model", "claude_code_version": "version"},
    "api_retry": {
        "attempt": "attempt",
        "max_retries": "maxRetries",
        "retry_delay_ms": "delayMs",
        "error_status": "errorStatus",
        "error": "error",
    },
    "permission_denied": {"tool_name": "tool", "tool_use_id": "callId"},
    "model_fallback": {"original_model": "from", "fallback_model": "to"},
}
_SENTENCES: dict[str, Callable[[dict[str, Any]], str]] = {
    "init": lambda event: f"Claude begins, with the model {event.get('model')}.",
    "api_retry": lambda event: (
        f"The model's API failed ({whole(event.get('error_status'), 999) or event.get('error')}),"
        " and is called again."
    ),
    "permission_denied": lambda event: (
        f"The tool {event.get('tool_name')} was refused, because it needs a permission."
    ),
    "model_fallback": lambda event: f"Claude goes on with the model {event.get('fallback_model')}.",
    "compact_boundary": lambda _: "Claude has summed up the conversation so far.",
}


SUFFIX = ".ndjson"
# The most events that the API takes of a run (API.md, `POST /workers/:id/runs/:runId/events`).
MOST_EVENTS = 20_000
MOST_BYTES = 5 * 1024 * 1024
# This many of these bytes are kept free for the last event, which says that there was more.
_ROOM_BYTES = 1024
# The most events that the API takes in a call. The call has 256 KiB at most, and some of that is not for events.
MOST_IN_A_CALL = 500
MOST_BYTES_IN_A_CALL = 240 * 1024
# The most bytes that the event files of all runs have together. Beyond that, the oldest files are removed.
MOST_BYTES_OF_ALL = 256 * 1024 * 1024


class EventFile:
    """A file to which events are appended until it is full. A crash of the machine may lose the last ones."""

    def __init__(
        self, path: Path, most_bytes: int, most_events: int, *, go_on: bool = False
    ) -> None:
        """Make the file, mode 0600, or with `go_on` continue the one that an earlier claim has left. Raises OSError."""
        earlier = path.read_bytes() if go_on and path.exists() else b""
        path.unlink(missing_ok=True)
        self._file = durable.create(path)
        self._most_bytes, self._most_events = most_bytes, most_events
        self.seq = self.size = 0
        # The last line; empty if there is none.
        self.last = b""
        # What follows the last line end is an event that a crash has cut off.
        for line in earlier.splitlines(keepends=True):
            if line.endswith(b"\n"):
                self._write(line)
        if self.seq >= most_events or self.size > most_bytes:
            self.close()

    @property
    def open(self) -> bool:
        return self._file >= 0

    def append(self, line: Callable[[int], bytes], last: Callable[[int], bytes]) -> None:
        """Append an event's line, or the line `last` if it has no room. Both get the event's number. Raises OSError."""
        if not self.open:
            return
        number = self.seq + 1
        content = line(number)
        full = number >= self._most_events or self.size + len(content) > self._most_bytes
        self._write(last(number) if full else content)
        if full:
            self.close()

    def _write(self, line: bytes) -> None:
        if os.write(self._file, line) < len(line):
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.seq += 1
        self.size += len(line)
        self.last = line

    def close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


class SpoolWriter(EventFile):
    """The file of a run's events in the form in which the API takes them."""

    def __init__(self, path: Path, *, go_on: bool = False) -> None:
        super().__init__(path, MOST_BYTES - _ROOM_BYTES, MOST_EVENTS, go_on=go_on)
        if (_event(self.last) or {}).get("type") == TRUNCATED:
            self.close()

    def add(self, kind: str, text: str | None, data: dict[str, Any] | None) -> None:
        had = {"events": self.seq, "bytes": self.size}
        self.append(
            lambda seq: line_of(seq, kind, text, data),
            lambda seq: line_of(seq, TRUNCATED, None, had),
        )


def line_of(seq: int, kind: str, text: str | None, data: dict[str, Any] | None) -> bytes:
    """Return an event of this moment in the API's form, as a line of JSON."""
    event = {"seq": seq, "at": iso(time.time()), "type": kind, "text": text, "data": data}
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"


class SpoolReader:
    """Reads the events of a file that may still grow. The number of an event is that of its line, from 1 on."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        # The number of the next event, and the place where its line begins.
        self.seq = 1
        self._offset = 0

    @property
    def removed(self) -> bool:
        return os.fstat(self._file.fileno()).st_nlink == 0

    def lines(self) -> list[bytes]:
        """Return the next events, as many as one call of the API takes. `go_to` moves on to later ones."""
        content = os.pread(self._file.fileno(), MOST_BYTES_IN_A_CALL, self._offset)
        # What follows the last line end is an event that is being written, or one that a crash has cut off.
        return content.split(b"\n")[:-1][:MOST_IN_A_CALL]

    def go_to(self, seq: int) -> None:
        """Make `seq` the number of the next event, or the end of the file if that has fewer."""
        if seq < self.seq:
            self.seq, self._offset = 1, 0
        while self.seq < seq and (lines := self.lines()):
            passed = lines[: seq - self.seq]
            self.seq += len(passed)
            self._offset += sum(len(line) + 1 for line in passed)

    def close(self) -> None:
        self._file.close()


def is_full(lines: list[bytes]) -> bool:
    """Tell whether a call with these events has so many of them that more are probably waiting."""
    return len(lines) == MOST_IN_A_CALL or sum(map(len, lines)) > MOST_BYTES_IN_A_CALL / 2


def make_room(directory: Path, *, most_bytes: float = inf, most: float = inf) -> None:
    """Remove the oldest files until at most `most` are left, with at most `most_bytes` in all."""
    files = []
    for path in directory.glob(f"*{SUFFIX}"):
        # Another thread, which sends this file or removes old ones, may be removing it.
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            files.append((found.st_mtime, found.st_size, path))
    size = sum(each for _, each, _ in files)
    for left, (_, each, path) in zip(range(len(files), 0, -1), sorted(files)):
        if size <= most_bytes and left <= most:
            return
        path.unlink(missing_ok=True)
        size -= each


NOT_WRITTEN = "a run's events can't be written"
LOCAL_EVENTS_VARIABLE = "PIPEDAI_LOCAL_RUN_EVENTS"
LOCAL_EVENTS_ROOT = Path("~/.pipedai/runs")
# The bounds of one file, of one event's payload, and of the number of files. All files stay below 2 GiB.
LARGEST_FILE_BYTES = 8 * 1024 * 1024
LARGEST_PAYLOAD_BYTES = 256 * 1024
LONGEST_TYPE = 100
KEPT_RUNS = 200

Sink = Callable[[str, Any], None]


def local_events_wanted() -> bool:
    return os.environ.get(LOCAL_EVENTS_VARIABLE, "").lower() in {"1", "true", "yes"}


class RunEvents:
    """The event file of one run, with a line `{ seq, type, ts, payload }` for each. Errors only lose events."""

    def __init__(self, directory: Path, run_id: str, redactor: Redactor) -> None:
        self._redactor = redactor
        self._file: EventFile | None = None
        with logged(NOT_WRITTEN):
            durable.private_directory(directory)
            make_room(directory, most=KEPT_RUNS - 1)
            path = directory / f"{run_id}{SUFFIX}"
            self._file = EventFile(path, LARGEST_FILE_BYTES, sys.maxsize)

    def write(self, kind: str, payload: Any) -> None:
        """Append an event. When the file is full, append one last event, `events.truncated`, and nothing after it."""
        if self._file is None or not self._file.open:
            return
        clean, had = self._redacted(payload), {"bytes": self._file.size}
        with logged(NOT_WRITTEN):
            self._file.append(
                lambda seq: self._line(seq, kind, clean),
                lambda seq: self._line(seq, "events.truncated", had),
            )
            return
        self._file.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _line(self, seq: int, kind: str, payload: Any) -> bytes:
        name = self._redactor.redact(kind)[:LONGEST_TYPE]
        event = {"seq": seq, "type": name, "ts": iso(time.time()), "payload": payload}
        # json.dumps writes only ASCII, so an event has no line end in it, and nothing that is invalid in UTF-8.
        return json.dumps(event).encode() + b"\n"

    def _redacted(self, value: Any) -> Any:
        try:
            # The length is checked first, because replacing secrets in a large payload takes long.
            length = len(json.dumps(value))
            if length > LARGEST_PAYLOAD_BYTES:
                return {"truncated": True, "bytes": length}
            return self._redactor.redact_json(value, self._redacted_string)
        except RecursionError:
            return {"truncated": True}

    def _redacted_string(self, text: str) -> str:
        if len(text) >= SHORTEST_CUT_STRING:
            return self._redactor.redact_cut_off(text)
        return self._redactor.redact(text)


# While a run's file has nothing new, it is looked at this often.
LOOK_SECONDS = 0.2


def from_file(path: Path, after: int, is_over: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Yield the file's events after a number until the run is over. Raises FileNotFoundError."""
    with contextlib.closing(SpoolReader(path)) as reader:
        reader.go_to(after + 1)
        while True:
            # The end is noted before the lines are read, so that events added before the end are read too.
            over = reader.removed or is_over()
            lines = reader.lines()
            for line in lines:
                if (event := _event(line)) is not None:
                    yield event
            reader.go_to(reader.seq + len(lines))
            if over and not lines:
                return
            if not lines:
                time.sleep(LOOK_SECONDS)


def _event(text: bytes) -> dict[str, Any] | None:
    try:
        value = parse(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) and whole(value.get("seq")) is not None else None


_TYPE_WIDTH = 11
_INDENT = " " * (9 + _TYPE_WIDTH + 1)
LONGEST_SHOWN_DATA = 300


def shown(event: dict[str, Any]) -> str:
    kind = harmless(str(event.get("type")))
    lines = [harmless(line) for line in _said(event).split("\n")]
    text = f"\n{_INDENT}".join(lines)
    return f"{_time(event.get('at'))} {kind:<{_TYPE_WIDTH}} {text}".rstrip()


def harmless(text: str) -> str:
    """Return one line in which each character that a terminal would act upon, or that nobody sees, is an escape."""
    text = text.expandtabs(4)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _said(event: dict[str, Any]) -> str:
    text, data = event.get("text"), event.get("data")
    said = text.rstrip("\n") if isinstance(text, str) else ""
    if event.get("type") == TOOL_CALL and isinstance(data, dict):
        # The tool's name is the event's text, so only the tool's input is shown here.
        data = data.get("input")
    elif said:
        return said
    text = json.dumps(data, ensure_ascii=False) if data is not None else ""
    return f"{said} {shortened(text, LONGEST_SHOWN_DATA)}".strip()


def _time(at: object) -> str:
    moment = parse_time(at)
    if moment is None:
        return "--:--:--"
    return f"{datetime.fromtimestamp(moment, tz=timezone.utc).astimezone():%H:%M:%S}"
