"""Hands incidents and ended runs to the channels, which tell people or programs about them (SPEC §14)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from notices.channels.queueing import (
    channels_wanting,
    channels_wanting_outcomes,
    queue_notices,
)
from notices.channels.telling import incidents_told, outcomes_told
from notices.channels.words import RUN_ENDED
from notices.states import Kind
from pipedai.sql import execute

# Adds to the `notice_count` of incidents. The order of the rows does not matter, because the caller has locked them.
_COUNT = """
UPDATE incident i SET notice_count = i.notice_count + n.count
FROM unnest(%(ids)s::uuid[], %(counts)s::int[]) n (id, count) WHERE i.id = n.id
"""

Moment = Literal["opened", "reminder", "recovered"]


@dataclass(frozen=True, slots=True)
class Announcement:
    """One thing that people are told about an incident.

    The caller's transaction has locked the incident's row before it calls `announce`, which reads the subject, the
    cause and the times from that row.
    """

    incident_id: UUID
    environment_id: UUID
    kind: Kind
    # `opened` is announced once for each incident. `reminder` is announced once a day, seven times at most, while the
    # incident is open and nobody has acknowledged it. `recovered` is announced at most once, if the cause has gone
    # away. Nothing is announced when an incident is closed because its subject was disabled or deleted.
    moment: Moment

    @property
    def event(self) -> str:
        """The event's name in a channel's list of events: the incident's kind, or `<kind>.recovered`."""
        return f"{self.kind}.recovered" if self.moment == "recovered" else self.kind.value


@dataclass(frozen=True, slots=True)
class FinalOutcome:
    """The end of a run that succeeded, failed or timed out, and that no retry follows.

    If a late result replaces the outcome that the server had decided, the run has a second FinalOutcome.
    """

    run_id: UUID
    environment_id: UUID
    trigger_id: UUID


def announce(announcements: Sequence[Announcement], *, now: datetime | None = None) -> None:
    """Queues the notices about incidents for the channels of their environments, and adds the number of notices to each
    incident's `notice_count`.

    Call it once for a whole batch, in the transaction that opened, reminded of or closed the incidents. It takes a
    constant number of statements and sends nothing itself, so a rollback removes the notices too. `now` replaces the
    database's clock.
    """
    if not announcements:
        return
    environments = [each.environment_id for each in announcements]
    events = [each.event for each in announcements]
    channels = channels_wanting(environments, events, now=now)
    if not channels:
        return
    wanted = [(each.incident_id, each.event, each.moment == "reminder") for each in announcements]
    told = incidents_told(wanted, channels[0]["now"])
    queued = queue_notices(channels, told, now=now)
    if counts := Counter(notice.incident_id for notice in queued if notice.incident_id):
        execute(_COUNT, {"ids": list(counts), "counts": list(counts.values())})


def announce_outcomes(outcomes: Sequence[FinalOutcome]) -> None:
    """Queues the notices about ended runs (`run.ended`) for the webhook channels that subscribe to them.

    Call it once for a whole batch, in the transaction that ended the runs. In an environment without such a channel it
    takes one statement that reads one index entry, because it is on the path of every run's end.
    """
    if not outcomes:
        return
    channels = channels_wanting_outcomes(outcome.environment_id for outcome in outcomes)
    if channels:
        told = outcomes_told([outcome.run_id for outcome in outcomes], RUN_ENDED)
        queue_notices(channels, told)
