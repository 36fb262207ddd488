"""Shows staff the events of a run, only when they ask for them: the events may hold what the customer works on."""

import json
from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.http import HttpRequest

from pipedai.admin.panels import Links, Panel, Table
from pipedai.admin.support import staff_actor
from pipedai.admin.values import data, long_text
from pipedai.events import Event, emit
from triggers.run_events.reading import page_of_events, stored_events

# The query parameter of a run's page by which staff ask for the events after a number.
ASKED = "events"
_SHOWN = 200
_MOST_BYTES = 1024 * 1024


def events_panels(run: Any, sent: Mapping[str, str]) -> list[Panel]:
    """Returns the panels with the events that were asked for, or with a link that asks for them. There is none for a
    run without events.
    """
    after = _after(sent)
    if after is None:
        stored = stored_events(run.id)
        return [Links("Events", [(f"Show the {stored:,} events", f"?{ASKED}=0")])] if stored else []
    page = page_of_events(run.id, after=after, limit=_SHOWN, most_bytes=_MOST_BYTES)
    rows = [json.loads(event.json) for event in page.events]
    table = Table(
        "Events",
        ("Number", "When", "Type", "Text", "Data"),
        [
            (row["seq"], row["at"], row["type"], long_text(row["text"]), data(row["data"]))
            for row in rows
        ],
        nothing="There are none after this number.",
    )
    if not rows or rows[-1]["seq"] >= page.last_seq:
        return [table]
    return [table, Links("More events", [("The next events", f"?{ASKED}={rows[-1]['seq']}")])]


def note_looking(run: Any, request: HttpRequest) -> None:
    """Writes an audit row if the request asks for the events of the run."""
    after = _after(request.GET.dict())
    if after is not None:
        actor = staff_actor(request)
        with transaction.atomic():
            emit(
                Event("run.events-read", actor, run.environment_id, "run", run.id, {"after": after})
            )


def _after(sent: Mapping[str, str]) -> int | None:
    """Returns the number that was sent, 0 for anything else, or None if staff asked for no events."""
    if ASKED not in sent:
        return None
    number = sent[ASKED]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0
