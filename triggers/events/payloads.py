"""The payloads of the runs that events start, in which nothing but the event's own data stands (SPEC §25)."""

from typing import Any

from pipedai.api.renderers import compact_json, iso_time
from triggers.events.clauses import pick
from triggers.models import Event
from triggers.runs.serializers import MAX_PAYLOAD_BYTES

Payload = dict[str, Any]


class TooLarge(Exception):  # noqa: N818 - named as what the payload is
    """The event alone makes a larger payload than a run may have."""


def payload_of(event: Event, fields: dict[str, str] | None) -> Payload:
    """Returns `{ event, data }` for an event of a source, with the values at the paths in `fields` or the whole body,
    and `{ event, output }` for the end of a run. Raises TooLarge.
    """
    if event.run is None:
        assert event.source is not None
        data = event.body if fields is None else pick(fields, event.body)
        payload = {"event": _about(event, "source", event.source, event.type), "data": data}
    else:
        result = getattr(event.run, "result", None)
        about = _about(event, "trigger", event.run.trigger, event.run.status)
        about["runId"] = str(event.run_id)
        payload = {"event": about, "output": result and result.output}
    if _size(payload) > MAX_PAYLOAD_BYTES:
        raise TooLarge
    return payload


def _about(event: Event, kind: str, sender: Any, type_: str | None) -> Payload:
    return {
        "id": str(event.id),
        "source": {"type": kind, "id": str(sender.id), "name": sender.name},
        "type": type_,
        "receivedAt": iso_time(event.received_at),
    }


def add_to_all(several: Payload | None, payload: Payload) -> Payload:
    """Returns `{ events, omitted }` with this payload as the last. To keep the limit, the oldest are left out, which
    `omitted` counts. `several` is what it was before, or None. Raises TooLarge.
    """
    events = [*(several["events"] if several else ()), payload]
    omitted = several["omitted"] if several else 0
    # Commas and the rest are counted generously, so that the sum is never too small.
    room = MAX_PAYLOAD_BYTES - _size({"events": [], "omitted": 10**9})
    sizes = [_size(each) + 1 for each in events]
    if sizes[-1] > room:
        raise TooLarge
    total, kept = 0, 0
    for size in reversed(sizes):
        total += size
        if total > room:
            break
        kept += 1
    return {"events": events[-kept:], "omitted": omitted + len(events) - kept}


def _size(value: Any) -> int:
    return len(compact_json(value).encode())
