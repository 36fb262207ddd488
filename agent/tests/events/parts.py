"""Parts of a worker that records events, without processes: an API in memory, and a recorder that sends nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipedai_worker.api import Api, Refused, Unavailable
from pipedai_worker.conformance import requests
from pipedai_worker.conformance.fake_api import FakeRun
from pipedai_worker.disk.spool import SpoolReader, SpoolWriter
from pipedai_worker.redact import Redactor
from pipedai_worker.running.reporting import Recorder, Sender


class EventApi(Api):
    """Takes events as the real API does, into `run`. While `failure` is set, it raises that instead."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9")
        self.run = FakeRun(record_events="always")
        self.failure: Exception | None = None
        self.calls: list[list[int]] = []
        # The API stores an event and loses the answer to so many calls.
        self.lost_answers = 0
        # The types of the events that it refuses.
        self.refused_types: set[str] = set()

    def tell_events(self, run_id: str, body: bytes) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        told = json.loads(body)
        assert requests.problem("events", {}, told) is None
        self.calls.append([event["seq"] for event in told["events"]])
        if self.refused_types & {event["type"] for event in told["events"]}:
            raise Refused("Validation failed", 400, "validation_failed")
        status, answer = self.run.take_events(told)
        if status != 200:
            raise Refused(answer["error"], status, answer["code"], answer)
        if self.lost_answers:
            self.lost_answers -= 1
            raise Unavailable("cut off")
        return answer

    @property
    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.run.events]


class Recording:
    """A recorder whose events stay in their file."""

    def __init__(self, directory: Path, *secrets: str) -> None:
        self.path = directory / "run.ndjson"
        writer = SpoolWriter(self.path)
        sender = Sender(Api("http://127.0.0.1:9"), "run", self.path, lambda _: False)
        self.recorder = Recorder(writer, sender, Redactor(secrets))

    def told(self, kind: str, payload: Any) -> list[dict[str, Any]]:
        """Return the events that are recorded for one event of a program."""
        before = len(self.events())
        self.recorder.take(kind, payload)
        return self.events()[before:]

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]


def written(path: Path, count: int) -> SpoolWriter:
    """Return the writer of a file that has so many events."""
    writer = SpoolWriter(path)
    for number in range(1, count + 1):
        writer.add("message", f"Event {number}", None)
    return writer


def numbers(reader: SpoolReader) -> list[int]:
    return [json.loads(line)["seq"] for line in reader.lines()]


def saying(text: str) -> dict[str, Any]:
    """Return the event in which claude tells that the model has said this."""
    return {"type": "assistant", "message": {"content": [{"type": "text", "text": text}]}}
