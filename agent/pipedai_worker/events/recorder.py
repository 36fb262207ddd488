"""Records what one run's program does: takes each of its events, without secrets, to the file that may be sent."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipedai_worker.api.client import Api
from pipedai_worker.disk.journal import KEPT
from pipedai_worker.events import kinds
from pipedai_worker.events.kinds import STREAMS, RunEvent
from pipedai_worker.events.sender import Sender
from pipedai_worker.events.spool import MOST_BYTES_OF_ALL, SpoolWriter, make_room
from pipedai_worker.logs import get_logger
from pipedai_worker.redact import RedactingTexts, Redactor
from pipedai_worker.reporting.outcome import storable
from pipedai_worker.reporting.output import size_of
from pipedai_worker.values import with_strings

log = get_logger(__name__)

# The bounds of one event, in characters: its text, one string of its data, and the JSON of its data.
LONGEST_TEXT, LONGEST_STRING, LONGEST_DATA = 8_000, 2_000, 16_000
# The API refuses JSON that is nested deeper than 64, and an event's data stands three deep in a call.
DEEPEST_DATA = 50


class Recorder:
    """Records one run. Nothing that goes wrong here reaches the run: events are lost then, and the log says so."""

    def __init__(self, writer: SpoolWriter, sender: Sender, redactor: Redactor) -> None:
        self._writer = writer
        self.sender = sender
        self._redactor = redactor
        # A secret may begin in one text and end in the next text of the same type, so each type has its own redactor.
        self._texts: defaultdict[str, RedactingTexts] = defaultdict(
            lambda: RedactingTexts(redactor)
        )

    @classmethod
    def begin(
        cls,
        api: Api,
        run_id: str,
        path: Path,
        redactor: Redactor,
        wait: Callable[[float], bool],
        *,
        go_on: bool = False,
    ) -> Recorder | None:
        """Make the run's file, and begin to send it unless it is kept for the run's end. Return None if the disk fails.

        `wait` sleeps for so many seconds, and returns True once the worker has to exit. With `go_on`, the events that
        the run had before it waited stay.
        """
        try:
            make_room(path.parent, most_bytes=MOST_BYTES_OF_ALL)
            writer = SpoolWriter(path, go_on=go_on)
            sender = Sender(api, run_id, path, wait)
        except OSError as error:
            log.warning("run %s: its events can't be recorded: %s", run_id, error.strerror)
            return None
        if not path.name.endswith(KEPT):
            sender.begin()
        return cls(writer, sender, redactor)

    def take(self, kind: str, payload: Any) -> None:
        if not self._writer.open:
            return
        try:
            if self.sender.dropped:
                self._writer.close()
                return
            for event in kinds.read(kind, payload):
                for text, data in self._redacted(event):
                    self._writer.add(event.type, text, data)
            self.sender.added()
        except OSError as error:
            log.warning("a run's events can't be written: %s", error.strerror)
            self._writer.close()
        except Exception:
            log.exception("an event can't be recorded; the run goes on without further events")
            self._writer.close()

    def finish(self, *, waits: bool = False) -> None:
        """Record nothing more. `waits` says that the run will go on, and its events after it."""
        self._writer.close()
        self.sender.waits = waits
        self.sender.finish()

    def _redacted(self, event: RunEvent) -> Iterator[tuple[str | None, dict[str, Any] | None]]:
        """Yield the text and the data of each event to write: one, or several for a long piece of a stream."""
        if event.type in STREAMS:
            for text in event.texts:
                clean = self._texts[event.type].next(text)
                for start in range(0, len(clean), LONGEST_TEXT):
                    yield str(storable(clean[start : start + LONGEST_TEXT])), None
            return
        cleaned = [self._texts[event.type].next(text, LONGEST_TEXT + 1) for text in event.texts]
        text = str(storable("\n".join(cleaned)))
        data = self._data(event)
        if len(text) > LONGEST_TEXT:
            text = text[: LONGEST_TEXT - 1] + "…"
            data["textLength"] = sum(map(len, event.texts)) + len(event.texts) - 1
        yield text or None, data or None

    def _data(self, event: RunEvent) -> dict[str, Any]:
        texts = self._texts[f"{event.type} data"]

        def short(text: str) -> str:
            clean = texts.next(text, LONGEST_STRING + 1)
            return clean if len(clean) <= LONGEST_STRING else clean[: LONGEST_STRING - 1] + "…"

        for data in (event.data, {**_plain(event.data), "dataLeftOut": True}):
            with contextlib.suppress(RecursionError):
                clean = storable(with_strings(data, short, self._redactor.redact))
                size = size_of(clean)
                if (
                    size is not None
                    and size <= LONGEST_DATA
                    and not _is_deeper(clean, DEEPEST_DATA)
                ):
                    return dict(self._redactor.redact_json(clean))
        return {"dataLeftOut": True}


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in data.items()
        if isinstance(value, str)
        or (not isinstance(value, (dict, list)) and size_of(value) is not None)
    }


def _is_deeper(value: Any, deepest: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return deepest < 0 or any(_is_deeper(item, deepest - 1) for item in inner)
