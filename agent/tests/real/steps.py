"""Lists what a script may have the Messages API do with a request of the CLI: each step answers one or more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from .reply import Message, Reply, event

_WEEK_SECONDS = 7 * 24 * 3600


class Step(Protocol):
    """One step of a script."""

    # How many requests the step answers before the next one has its turn; None means all that come.
    @property
    def times(self) -> int | None: ...

    def play(self, reply: Reply, *, ended: threading.Event) -> None:
        """Answer a request. `ended` is set when the API shuts down: a step that waits has to give up then."""


@dataclass(frozen=True)
class Turn:
    """The model says something, or calls tools: see `say`, `call` and their neighbours below."""

    message: Message
    # Seconds before the answer.
    after: float = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int | None = 1

    def play(self, reply: Reply, *, ended: threading.Event) -> None:
        ended.wait(self.after)
        reply.message(self.message, self.headers)


def say(text: str, *, after: float = 0, **message: Any) -> Turn:
    """The model says `text`, which ends its turn."""
    return Turn(Message(text, **message), after)


def call(name: str, *, after: float = 0, **arguments: Any) -> Turn:
    """The model calls one tool of the CLI."""
    return calls((name, arguments), after=after)


def calls(*named: tuple[str, Mapping[str, Any]], after: float = 0) -> Turn:
    """The model calls several tools at once."""
    return Turn(Message(calls=named), after)


def mcp(tool: str, **arguments: Any) -> Turn:
    """The model calls a tool of the trigger's MCP server."""
    return call(f"mcp__trigger__{tool}", **arguments)


def bash(command: str, *, background: bool = False) -> Turn:
    """The model runs a command of the shell, in the background if it says so."""
    extra = {"run_in_background": True} if background else {}
    return call("Bash", command=command, description="Scripted", **extra)


def output(value: Any) -> Turn:
    """The model gives the structured output that `--json-schema` asks for."""
    arguments = value if isinstance(value, dict) else {"value": value}
    return call("StructuredOutput", **arguments)


def huge(kib: int) -> Turn:
    """The model says a text of so many KiB."""
    return say("x" * 1024 * kib)


@dataclass(frozen=True)
class Status:
    """The API answers with an HTTP error, `times` times or for ever."""

    code: int
    times: int | None = None
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def play(self, reply: Reply, *, ended: threading.Event) -> None:
        reply.error(self.code, self.message, self.headers)


@dataclass(frozen=True)
class Limit:
    """The API answers 429, as for a subscription whose five hours are used up. They begin anew after `seconds`."""

    seconds: int
    times: int | None = None

    def play(self, reply: Reply, *, ended: threading.Event) -> None:
        now = int(time.time())
        rejected, reset = "rejected", str(now + self.seconds)
        headers = {
            "status": rejected,
            "reset": reset,
            "representative-claim": "five_hour",
            "5h-status": rejected,
            "5h-reset": reset,
            "5h-utilization": "1.0",
            "7d-status": "allowed",
            "7d-reset": str(now + _WEEK_SECONDS),
            "7d-utilization": "0.4",
            "overage-status": rejected,
            "overage-disabled-reason": "org_level_disabled",
        }
        unified = {f"anthropic-ratelimit-unified-{name}": value for name, value in headers.items()}
        text = "This request would exceed your account's rate limit. Please try again later."
        reply.error(429, text, {**unified, "retry-after": str(self.seconds)})


@dataclass(frozen=True)
class Hang:
    """The API takes the request and never answers."""

    times: int | None = None

    def play(self, reply: Reply, *, ended: threading.Event) -> None:
        ended.wait()
        reply.cut()


@dataclass(frozen=True)
class Cut:
    """The API resets the connection: before any answer, or with `inside` in the middle of a message."""

    inside: bool = False
    times: int | None = None

    def play(self, reply: Reply, *, ended: threading.Event) -> None:
        if self.inside:
            reply.stream(_first(reply, 3))
        reply.cut()


@dataclass(frozen=True)
class Stall:
    """The API stops in the middle of a message for so many seconds, and then finishes it."""

    seconds: float
    times: int | None = 1

    def play(self, reply: Reply, *, ended: threading.Event) -> None:
        def events() -> Iterator[bytes]:
            for number, each in enumerate(reply.events(Message("It took a while."))):
                if number == 3:
                    ended.wait(self.seconds)
                yield each

        reply.stream(events())


@dataclass(frozen=True)
class Broken:
    """The API sends an error event in the middle of a message."""

    kind: str = "overloaded_error"
    times: int | None = None

    def play(self, reply: Reply, *, ended: threading.Event) -> None:
        def events() -> Iterator[bytes]:
            yield from _first(reply, 3)
            yield event("error", error={"type": self.kind, "message": "Scripted."})

        reply.stream(events())


def _first(reply: Reply, number: int) -> Iterator[bytes]:
    for _, each in zip(range(number), reply.events(Message("It is about to end.")), strict=False):
        yield each
