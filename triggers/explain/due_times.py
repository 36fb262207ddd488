"""Explains what became, or will become, of a due time of a trigger's schedule.

Due times before `next_run_at` have been decided about, and are in ticks. Later ones follow from the present schedule.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID
from zoneinfo import ZoneInfoNotFoundError

from django.forms import ValidationError

from pipedai.api.filters import TimeField
from pipedai.api.renderers import counted
from pipedai.sql import NOW, Row, database_now, fetch_one
from triggers.explain.answers import (
    DISABLED,
    NOT_SCHEDULED,
    RunExplanation,
    TriggerExplanation,
    due_time_words,
    moment_words,
    with_times,
    without_scheduler,
)
from triggers.explain.runs import explain_run, last_event
from triggers.models import Tick
from triggers.reasons import DUE_TIMES, PENDING
from triggers.schedules import cron
from triggers.schedules.cron import DueTimes
from triggers.states import Decision
from triggers.tenancy import zone_of_trigger

# A decision about a due time is late if a scheduler takes longer than this to make it.
LATE_AFTER = timedelta(minutes=1)
_MOMENT = timedelta(microseconds=1)
# A request may ask about a time at most this far ahead of the present.
FURTHEST_AHEAD = timedelta(days=366)

_TRIGGER = f"""
SELECT t.id, t.name, t.worker_id, t.pool_id, t.schedule, t.timezone, t.run_once_at, t.enabled, t.next_run_at,
    t.created_at, t.updated_at, t.deleted_at, e.paused_at, {NOW} AS now,
    EXISTS (SELECT FROM listener l WHERE l.trigger_id = t.id) AS listens, h.is_failing, h.failures, h.late_since
FROM trigger t JOIN environment e ON e.id = t.environment_id LEFT JOIN trigger_health h ON h.trigger_id = t.id
WHERE t.id = %(trigger_id)s
"""


@dataclass(frozen=True, slots=True)
class _Question:
    """A question about the last due time up to `at`. `due_at` is this due time by the present settings, or None. `last`
    is the latest tick row that begins up to `at`; `before` and `after` are the rows next to it.
    """

    trigger: Row
    at: datetime
    last: Tick | None
    before: Tick | None
    after: Tick | None
    due_times: DueTimes | None
    due_at: datetime | None

    @property
    def now(self) -> datetime:
        now: datetime = self.trigger["now"]
        return now

    def words(self, moment: datetime) -> str:
        return due_time_words(moment, self.trigger["timezone"])


def why_no_run(decision: str) -> str:
    """Returns why there was no run, as the end of a sentence. A decision of a newer release is named as it is."""
    why = DUE_TIMES.get(decision)
    return why.because if why and why.because else f"a scheduler decided {decision}"


def time_in_question(text: str | None, trigger_id: UUID) -> datetime | None:
    """Reads a time, which is in the trigger's zone unless it has an offset. Raises ValueError with a sentence."""
    field = TimeField(required=False, zone=partial(zone_of_trigger, trigger_id))
    try:
        at: datetime | None = field.clean(text)
    except ValidationError as error:
        raise ValueError(error.messages[0]) from None
    check_time_in_question(at)
    return at


def check_time_in_question(at: datetime | None) -> None:
    """Raises ValueError, with a sentence, for a time that lies too far ahead to be asked about."""
    if at is not None and at > database_now() + FURTHEST_AHEAD:
        raise ValueError(f"Must be at most {FURTHEST_AHEAD.days} days ahead.")


@with_times
def explain_trigger(
    trigger_id: UUID,
    *,
    at: datetime | None = None,
    shows_values: bool = False,
    now: datetime | None = None,
) -> TriggerExplanation | None:
    """Returns what became, or will become, of the last due time up to `at`, which is now by default, and of the last
    event. With `shows_values` it also tells the value that a clause saw in the event. Returns None if there is no such
    trigger. It takes at most five statements, and those of `explain_run` if there is a run.
    """
    trigger = fetch_one(_TRIGGER, {"trigger_id": trigger_id, "now": now})
    if trigger is None:
        return None
    asked = _question(trigger, at or trigger["now"])
    told = _of_due_time(asked, now)
    event = last_event(trigger_id, at=asked.at, now=asked.now, shows_values=shows_values)
    return replace(told, health_message=_health_words(asked), last_event=event)


def _health_words(asked: _Question) -> str | None:
    """Returns why the trigger is failing or late, whatever became of the due time; None if it is neither."""
    trigger = asked.trigger
    if not trigger["enabled"]:
        return None
    if trigger["is_failing"]:
        number = trigger["failures"]
        which = "outcome" if number == 1 else f"{number} outcomes"
        return f"Its last {which} failed or timed out."
    if trigger["late_since"] is not None:
        return f"No run has succeeded in time since {asked.words(trigger['late_since'])} was due."
    return None


def _of_due_time(asked: _Question, now: datetime | None) -> TriggerExplanation:
    trigger = asked.trigger
    last, due_at = asked.last, asked.due_at
    if last is not None and _is_told_by(last, asked):
        return _decided(asked, last, now)
    if asked.at < trigger["created_at"]:
        made = moment_words(trigger["created_at"], asked.now)
        return _answer(asked, NOT_SCHEDULED, f"The trigger was made later, at {made}.")
    if trigger["deleted_at"] is not None:
        deleted = moment_words(trigger["deleted_at"], asked.now)
        return _answer(asked, NOT_SCHEDULED, f"The trigger was deleted at {deleted}.")
    if trigger["schedule"] is None and trigger["run_once_at"] is None:
        upon = (
            "at events, and when somebody says so"
            if trigger["listens"]
            else "only when somebody says so"
        )
        words = f"The trigger has no schedule: it runs {upon}."
        return _answer(asked, NOT_SCHEDULED, words)
    if not trigger["enabled"]:
        words = "The trigger is paused, so its due times make no runs."
        return _answer(asked, DISABLED, words, due_at)
    if asked.due_times is None:
        words = (
            "Its schedule or its time zone can't be worked out any more: set them anew with PATCH"
            " /triggers/:id."
        )
        return _answer(asked, PENDING, words)
    if due_at is None:
        words = f"No time was due before: the first one is {asked.words(trigger['next_run_at'])}."
        return _answer(asked, NOT_SCHEDULED, words)
    if due_at >= trigger["next_run_at"]:
        return _answer(asked, PENDING, _pending_words(asked, due_at, now), due_at)
    words = (
        f"By the present schedule {asked.words(due_at)} would have been due, but nothing was decided about it: the"
        " trigger was resumed or got this schedule later, or the decision is no longer kept."
    )
    return _answer(asked, NOT_SCHEDULED, words, due_at)


def _question(trigger: Row, at: datetime) -> _Question:
    ticks = Tick.objects.filter(trigger_id=trigger["id"])
    last, before, *_ = [*ticks.filter(tick_at__lte=at).order_by("-tick_at")[:2], None, None]
    after = ticks.filter(tick_at__gt=at).order_by("tick_at").first()
    due_times = due_at = None
    if trigger["schedule"] is not None or trigger["run_once_at"] is not None:
        try:
            due_times = DueTimes.of(trigger)
            due_at = due_times.last_between(trigger["created_at"], at)
        except (cron.BadSchedule, ZoneInfoNotFoundError, ValueError):
            due_times = due_at = None
    return _Question(trigger, at, last, before, after, due_times, due_at)


def _is_told_by(row: Tick, asked: _Question) -> bool:
    """Returns whether the row answers for `at`: no due time lies between the two. If the trigger has no due times now,
    this holds for an `at` before its last change, and always for the row of a `runOnceAt` that was decided after that
    change. If the present schedule has no due time up to `at`, the row is of an earlier schedule, and answers.
    """
    if asked.due_times is not None:
        return bool(asked.due_at is None or asked.due_at <= row.last_tick_at)
    changed_at = asked.trigger["updated_at"]
    was_once = asked.trigger["schedule"] is None and changed_at <= row.decided_at
    return bool(asked.at <= row.last_tick_at or asked.at < changed_at or was_once)


def _decided(asked: _Question, row: Tick, now: datetime | None) -> TriggerExplanation:
    """Returns the explanation of a due time about which a scheduler has decided."""
    due_at = row.tick_at
    if asked.due_at is not None and row.tick_at <= asked.due_at <= row.last_tick_at:
        due_at = asked.due_at
    elif row.last_tick_at <= asked.at:
        due_at = row.last_tick_at
    run = explain_run(row.run_id, now=now) if row.run_id is not None else None
    words = _decision_words(asked, row, due_at)
    if run is not None:
        words += f" The run: {run.summary}"
    return _answer(asked, row.decision, words, due_at, tick=row, run=run)


def _decision_words(asked: _Question, row: Tick, due_at: datetime) -> str:
    due, decided = asked.words(due_at), partial(moment_words, row.decided_at, asked.now)
    if row.decision != Decision.FIRED:
        words = f"{due} was due and made no run, because {why_no_run(row.decision)}."
        if row.decision == Decision.SKIPPED_MISSED:
            words += f" A scheduler decided so at {decided()}."
        elif row.blocked_by_id:
            words += f" The earlier run is {row.blocked_by_id}."
    elif row.decided_at - due_at > LATE_AFTER:
        words = f"{due} was due and made a run late, at {decided()}: no scheduler had come to it before."
    else:
        words = f"{due} was due and made a run."
    if row.missed_count > 1:
        words += (
            f" It is one of {counted(row.missed_count, 'due time')} from {asked.words(row.tick_at)} to"
            f" {asked.words(row.last_tick_at)}."
        )
    return words


def _pending_words(asked: _Question, due_at: datetime, now: datetime | None) -> str:
    due, trigger = asked.words(due_at), asked.trigger
    if due_at > asked.now:
        words = f"{due} has not come yet."
        if trigger["paused_at"] is not None:
            return f"{words} It makes no run while the environment is paused."
        if trigger["worker_id"] is None and trigger["pool_id"] is None:
            return f"{words} It makes no run without a machine or a pool."
        return words
    if asked.now - due_at <= LATE_AFTER:
        return f"{due} has just come due, and a scheduler will decide about it in a moment."
    if nobody := without_scheduler(now=now):
        return f"{due} is late, because {nobody}."
    return f"{due} is late: a scheduler is alive, but has not come to it yet."


def _answer(
    asked: _Question,
    decision: str,
    message: str,
    due_at: datetime | None = None,
    *,
    tick: Tick | None = None,
    run: RunExplanation | None = None,
) -> TriggerExplanation:
    return TriggerExplanation(
        at=asked.at,
        decision=decision,
        message=message,
        due_at=due_at,
        tick=tick,
        run=run,
        previous_due_at=_previous(asked, due_at or asked.at),
        next_due_at=_next(asked, due_at or asked.at),
    )


def _previous(asked: _Question, moment: datetime) -> datetime | None:
    coming = asked.trigger["next_run_at"]
    if coming is not None and coming < moment and asked.due_times is not None:
        return asked.due_times.last_between(coming - _MOMENT, moment - _MOMENT)
    row = asked.last
    if row is not None and row.tick_at >= moment:
        row = asked.before
    if row is None:
        return None
    last: datetime = row.last_tick_at
    if last < moment:
        return last
    # The tick row stands for several due times, and `moment` is one of them or lies between them.
    first: datetime = row.tick_at
    due_times = asked.due_times
    within = due_times.last_between(first, moment - _MOMENT) if due_times else None
    return within or first


def _next(asked: _Question, moment: datetime) -> datetime | None:
    row = asked.last
    coming: datetime | None = asked.trigger["next_run_at"]
    if row is not None and row.tick_at <= moment < row.last_tick_at:
        last: datetime = row.last_tick_at
        following = asked.due_times.next_after(moment) if asked.due_times else None
        return min(following or last, last)
    if asked.after is not None:
        later: datetime = asked.after.tick_at
        return later
    if coming is None or coming > moment or asked.due_times is None:
        return coming
    return asked.due_times.next_after(moment)
