"""The place where incidents and ended runs are handed to the channels that tell people of them (SPEC §14)."""

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

# The incidents' rows are locked already.
_COUNT = """
UPDATE incident i SET notice_count = i.notice_count + n.count
FROM unnest(%(ids)s::uuid[], %(counts)s::int[]) n (id, count) WHERE i.id = n.id
"""

Moment = Literal["opened", "reminder", "recovered"]


@dataclass(frozen=True, slots=True)
class Announcement:
    """Something about an incident that people are to be told.

    The incident's row is there when `announce` is called, and the caller's transaction has it locked: read the subject,
    the cause and the times from it.
    """

    incident_id: UUID
    environment_id: UUID
    kind: Kind
    # `opened` is told once for each incident. `reminder` is told once a day while it is open and nobody has
    # acknowledged it, seven times at most. `recovered` is told at most once, and only if the cause has gone away: an
    # incident that ends because its subject was disabled or deleted is closed without a word.
    moment: Moment

    @property
    def event(self) -> str:
        """The word by which a channel subscribes to this: the incident's kind, or `<kind>.recovered`."""
        return f"{self.kind}.recovered" if self.moment == "recovered" else self.kind.value


@dataclass(frozen=True, slots=True)
class FinalOutcome:
    """A run that succeeded, failed or timed out, and that no retry follows.

    A late result that replaces the server's verdict is told as an outcome of its own, with the same run.
    """

    run_id: UUID
    environment_id: UUID
    trigger_id: UUID


def announce(announcements: Sequence[Announcement], *, now: datetime | None = None) -> None:
    """Queues the notices about incidents for the channels of their environments. It adds the number of notices to
    `notice_count` of each incident.

    Call it once for a whole batch, in the transaction that opened, reminded of or closed the incidents. It takes a
    constant number of statements and sends nothing itself. If the transaction rolls back, nobody is told anything.
    `now` takes the place of the database's clock.
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
    """Queues the notices about ended runs (`run.ended`) for the webhook channels that want them.

    It is called in the transaction that ended the runs, once for a whole batch. It is on the path of every run's end,
    so it must cost next to nothing in an environment without such a channel: one statement, which reads one entry of
    an index.
    """
    if not outcomes:
        return
    channels = channels_wanting_outcomes(outcome.environment_id for outcome in outcomes)
    if channels:
        told = outcomes_told([outcome.run_id for outcome in outcomes], RUN_ENDED)
        queue_notices(channels, told)
