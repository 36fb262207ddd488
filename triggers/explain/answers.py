"""The form and the words of explanations, which the API, the staff admin and `manage.py explain` show."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import wraps
from typing import Any, Final, Literal, ParamSpec, TypeVar
from uuid import UUID

from pipedai.api.renderers import counted
from pipedai.clocks import zone_of
from pipedai.sql import NOW, fetch_row
from triggers.heartbeats import ALIVE_WITHIN
from triggers.models import Tick
from triggers.reasons import INFRA_FAULT, PENDING, WaitingFor
from triggers.runs.ending import NoRetry
from triggers.states import Decision, EndedBy, EventDecided, FaultClass, Status


class RetryDecision(StrEnum):
    """What became of the retry of an ended run."""

    # The retry is queued, whether its due time has come or not.
    DUE = "due"
    # A worker has claimed the retry. It may have ended since.
    DONE = "done"
    # There is no retry, or it was canceled in the queue.
    NONE = "none"


# The codes of a retry that `NoRetry` does not have. INFRA_FAULT and USAGE_LIMIT say why a retry exists. This one says
# that the run ended at its worker's usage limit. Such a retry does not count against `maxRetries`.
USAGE_LIMIT: Final = "usage_limit"
# Somebody canceled the retry while it was queued.
RETRY_CANCELED: Final = "retry_canceled"
# The run has no retry, although its trigger's present settings would give it one. So the settings have changed since
# the run ended.
SETTINGS_CHANGED: Final = "settings_changed"
RETRY_CODES: Final = (*NoRetry, INFRA_FAULT, USAGE_LIMIT, RETRY_CANCELED, SETTINGS_CHANGED)

NOT_SCHEDULED: Final = "not_scheduled"
DISABLED: Final = "disabled"
DECISIONS: Final = (*Decision.values, PENDING, NOT_SCHEDULED, DISABLED)


@dataclass(frozen=True, slots=True)
class TimeTold:
    """A time in the sentences of an answer: the words that stand for it there, and the moment."""

    words: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Subject:
    """What something is about: a worker, pool, trigger, connection, environment, budget, approval or source."""

    type: Literal[
        "worker", "pool", "trigger", "connection", "environment", "budget", "approval", "source"
    ]
    id: UUID
    name: str


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that a queued or waiting run waits for. `remedy` is None if nobody can do more than wait; `since` and
    `until` are None if unknown. Only the code BEHIND_OTHERS has `place`: the run's place, from 1, in the queue of the
    worker that gets to it first.
    """

    code: WaitingFor
    message: str
    subject: Subject | None = None
    since: datetime | None = None
    until: datetime | None = None
    remedy: str | None = None
    place: int | None = None


@dataclass(frozen=True, slots=True)
class Advice:
    """What is wrong with the machine of a worker that may take or holds the run, as the worker reports."""

    # The problem does not keep the run from the worker.
    code: str
    message: str
    subject: Subject


@dataclass(frozen=True, slots=True)
class Held:
    """Which worker holds a claimed or running run, and until when."""

    worker_id: UUID
    claimed_at: datetime
    # When the worker last renewed the lease, by a claim, a start or a heartbeat.
    last_heartbeat_at: datetime
    lease_expires_at: datetime
    deadline_at: datetime
    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended."""

    at: datetime
    by: EndedBy
    fault_class: FaultClass
    message: str | None


@dataclass(frozen=True, slots=True)
class Retry:
    """Whether an ended run has a retry, and why. `code` is one of RETRY_CODES."""

    decision: RetryDecision
    code: str
    message: str
    run_id: UUID | None = None
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EventNamed:
    """An event, and the source that sent it or the trigger whose run ended."""

    id: UUID
    # The status of the run that ended, which `run_id` names, or the type of the source's event.
    type: str | None
    received_at: datetime
    source: Subject
    run_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class EventExplanation:
    """What was decided about an event for one trigger."""

    event: EventNamed
    decision: EventDecided
    code: str | None
    clause: dict[str, Any] | None
    run_id: UUID | None
    message: str


@dataclass(frozen=True, slots=True)
class RunExplanation:
    """Where a run stands, and why. A queued or waiting run has `waiting_for`, which is empty if an online worker gets
    the run at its next poll. A run that has not ended also has `advice`. A claimed or running run has `held`. An ended
    run has `ended` and `retry`. `event` is the event that queued the run.
    """

    run_id: UUID
    status: Status
    summary: str
    waiting_for: tuple[Reason, ...] = ()
    advice: tuple[Advice, ...] = ()
    held: Held | None = None
    ended: Ended | None = None
    retry: Retry | None = None
    event: EventNamed | None = None
    # The times that the sentences name.
    times: tuple[TimeTold, ...] = ()


@dataclass(frozen=True, slots=True)
class TriggerExplanation:
    """What became, or will become, of the last due time (`due_at`) up to `at`. `decision` is one of DECISIONS; `tick`
    is its row, which may stand for several due times. `last_event` is the last event up to `at`.
    """

    at: datetime
    decision: str
    message: str
    due_at: datetime | None = None
    tick: Tick | None = None
    run: RunExplanation | None = None
    previous_due_at: datetime | None = None
    next_due_at: datetime | None = None
    # Why the trigger is failing or late; None if it is neither.
    health_message: str | None = None
    last_event: EventExplanation | None = None
    times: tuple[TimeTold, ...] = ()


_Asked = ParamSpec("_Asked")
_Explained = TypeVar("_Explained", RunExplanation, TriggerExplanation)
_told: ContextVar[dict[str, datetime] | None] = ContextVar("times_told", default=None)


@contextmanager
def times_told() -> Iterator[list[TimeTold]]:
    """Yields an empty list. When the block ends, the list gets each time that a sentence made inside the block names.
    With it, the code that shows the sentences can replace the times, which are in UTC, by times in the reader's zone.
    """
    outer, mine, times = _told.get(), {}, []  # type: ignore[var-annotated]
    token = _told.set(mine)
    try:
        yield times
    finally:
        _told.reset(token)
        times += [TimeTold(words, at) for words, at in mine.items()]
        if outer is not None:
            outer |= mine


def _note(words: str, moment: datetime) -> str:
    if (told := _told.get()) is not None:
        told[words] = moment
    return words


def with_times(explain: Callable[_Asked, _Explained | None]) -> Callable[_Asked, _Explained | None]:
    """Wraps a function that explains, so that the explanation also has the times that its sentences name."""

    @wraps(explain)
    def explaining(*args: _Asked.args, **options: _Asked.kwargs) -> _Explained | None:
        with times_told() as times:
            found = explain(*args, **options)
        return found and replace(found, times=tuple(times))

    return explaining


_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def moment_words(moment: datetime, now: datetime, *, to_the_second: bool = False) -> str:
    """Returns a moment in UTC, such as `21:55 UTC`, with a date unless it is today."""
    moment, now = moment.astimezone(UTC), now.astimezone(UTC)
    clock = "%H:%M:%S" if to_the_second else "%H:%M"
    day = "" if moment.date() == now.date() else "%Y-%m-%d "
    return _note(f"{moment:{day}{clock}} UTC", moment)


def zoned_words(moment: datetime, timezone: str = "UTC") -> str:
    """Returns a moment in a time zone: `Tue 24 Nov 2026, 09:00 CET`, or with the zone's name if it has no letters for
    its time. It is in UTC if this machine does not know the zone any more. No mail program makes a link of it.
    """
    there = moment.astimezone(zone_of(timezone))
    letters = f"{there:%Z}"
    zone = letters if letters.isalpha() else f"in {timezone}"
    return f"{there:%a} {there.day} {there:%b %Y, %H:%M} {zone}"


def duration_words(length: timedelta) -> str:
    """Returns a duration of a second or more in its largest unit and the next one: `2 hours 5 minutes`."""
    left, words = max(1, round(length.total_seconds())), []
    for name, seconds in _UNITS:
        number, left = divmod(left, seconds)
        if number:
            words.append(counted(number, name))
        elif words:
            break
    return " ".join(words[:2])


def due_time_words(moment: datetime, timezone: str) -> str:
    """Returns a due time in UTC and in the zone of its schedule: `2026-11-24 08:00 UTC (09:00 in Europe/Berlin)`."""
    words = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    zone = zone_of(timezone)
    if str(zone) == "UTC":
        return _note(words, moment)
    local = moment.astimezone(zone)
    same_day = local.date() == moment.astimezone(UTC).date()
    there = f"{local:{'%H:%M' if same_day else '%Y-%m-%d %H:%M'}} in {timezone}"
    return _note(f"{words} ({there})", moment)


_BEATS = f"""
SELECT max(beat_at) AS last, coalesce(max(beat_at) > {NOW} - %(within)s::interval, false) AS is_alive, {NOW} AS now
FROM scheduler_heartbeat
"""


def without_scheduler(*, now: datetime | None) -> str | None:
    """Returns since when no scheduler is alive and what to do, in words; None if one is. It takes one statement."""
    beats = fetch_row(_BEATS, {"within": ALIVE_WITHIN, "now": now})
    if beats["is_alive"]:
        return None
    since = f" since {moment_words(beats['last'], beats['now'])}" if beats["last"] else ""
    return f"no scheduler is alive{since}: start one (manage.py runscheduler)"
