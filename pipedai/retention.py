"""What is forgotten once it is old: the apps register it, `manage.py prune` and the scheduler forget it.

It goes in small batches, each a transaction that waits for no lock longer than a moment. A process that dies
in the middle leaves whole batches behind and nothing half done: whoever comes next goes on from there.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import psycopg
from django.db import IntegrityError, OperationalError, transaction

from pipedai.logs import get_logger
from pipedai.patience import lacks_lock, set_lock_timeout
from pipedai.sql import database_now, execute

log = get_logger(__name__)

_PAUSE_SECONDS = 0.2
_LOCK_SECONDS = 0.2
# Of the scheduler, between whose batches other jobs have their turns: so many rows, and so long a look for some.
_SCHEDULER_BATCH = 200
_TURN_SECONDS = 0.2


class Batch(NamedTuple):
    """One batch: how many rows were looked at, and how many of them were removed (or would be)."""

    seen: int
    removed: int


@dataclass(frozen=True, slots=True)
class Order:
    """Forget what is older than `before`, about `limit` rows at a time; only count it if `dry_run`."""

    before: datetime
    limit: int
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Retention:
    """A kind of rows, and for how many days they are kept: None is for ever. Never fewer than `at_least`.

    `prune` does one batch at each step. What is not `automatic` only an operator's command removes.
    """

    kind: str
    what: str
    days: Callable[[], int | None]
    prune: Callable[[Order], Iterator[Batch]]
    at_least: int = 1
    automatic: bool = True


_registered: dict[str, Retention] = {}


def register_retention(retention: Retention) -> None:
    """Adds a kind to what can be forgotten. Call it from `AppConfig.ready()`."""
    _registered[retention.kind] = retention


def retentions() -> tuple[Retention, ...]:
    """All kinds."""
    return tuple(_registered.values())


def prune(retention: Retention, *, days: int, limit: int, dry_run: bool = False) -> Iterator[Batch]:
    """Forgets what is older than so many days, by the database's clock; a batch at each step."""
    return retention.prune(Order(database_now() - timedelta(days=days), limit, dry_run))


class InUse(Exception):  # noqa: N818 - what is the matter
    """What was to be removed is in use, again and again. Carries a sentence."""


def remove(step: Callable[[], int], *, tries: int = 5) -> int:
    """Runs one batch in a transaction that waits for no lock longer than a moment; how many rows it removed.

    When a row turns out to be in use all of the batch stays, and is tried again. Raises InUse at last.
    """
    for attempt in range(tries):
        time.sleep(_PAUSE_SECONDS if attempt else 0)
        try:
            with transaction.atomic():
                execute(set_lock_timeout(_LOCK_SECONDS), {})
                return step()
        except (OperationalError, IntegrityError) as error:
            referred_to = isinstance(error.__cause__, psycopg.errors.ForeignKeyViolation)
            if not (referred_to or lacks_lock(error)):
                raise
            reason = type(error.__cause__).__name__
            log.info("prune.in_use", reason=reason, attempt=attempt)
    raise InUse("Somebody uses what was to be removed; nothing is half done: try again later.")


def until_short(step: Callable[[], int], limit: int) -> Iterator[Batch]:
    """Batches of a step that removes up to `limit` rows, until it finds fewer."""
    removed = limit
    while removed >= limit:
        removed = remove(step)
        yield Batch(removed, removed)


class Rounds:
    """What the scheduler forgets by itself: every kind that has a retention, in turn, then again."""

    def __init__(self) -> None:
        self._round: Iterator[Batch] | None = None

    def work(self) -> int:
        """A job: one batch; how many rows it looked at, 0 at the end of a round alone.

        Where there are many environments with nothing to forget it looks no longer than a turn, and says 1.
        """
        self._round = self._round or self._begin()
        until = time.monotonic() + _TURN_SECONDS
        for batch in self._round:
            if batch.seen or time.monotonic() > until:
                return max(batch.seen, 1)
        self._round = None
        return 0

    def _begin(self) -> Iterator[Batch]:
        for retention in retentions():
            days = retention.days()
            if retention.automatic and days is not None:
                yield from prune(retention, days=days, limit=_SCHEDULER_BATCH)
