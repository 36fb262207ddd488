"""Words the reasons why no worker of a run's pool takes it, one for each hindrance (SPEC §13, §16)."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from pipedai.sql import Row
from triggers.explain.answers import Reason, Subject, WaitingFor
from triggers.explain.clock_words import moment_words

_ADD = "add a worker to the pool with PUT /pools/:id/workers/:workerId."
START_ONE = f"Start the worker program on one of them, or {_ADD}"


@dataclass(frozen=True, slots=True)
class _Group:
    """Those workers of a run's pool that have the same hindrance. `who` is the beginning of a sentence about them."""

    run: Row
    workers: list[Row]
    who: str

    @property
    def is_one(self) -> bool:
        return len(self.workers) == 1

    def say(self, one: str, several: str) -> str:
        return f"{self.who} {one if self.is_one else several}"

    def first(self, column: str) -> datetime | None:
        return min((row[column] for row in self.workers if row[column]), default=None)

    def last(self, column: str) -> datetime | None:
        return max((row[column] for row in self.workers if row[column]), default=None)

    def words(self, moment: datetime | None) -> str:
        return moment_words(moment, self.run["now"]) if moment else ""


def empty(run: Row) -> Reason:
    return Reason(
        WaitingFor.POOL_EMPTY,
        f"Pool {run['pool_name']} has no workers.",
        _pool(run),
        remedy=_ADD[0].upper() + _ADD[1:],
    )


def reasons(run: Row, held_back: Iterable[tuple[Row, list[WaitingFor]]]) -> Iterator[Reason]:
    """Yields the reasons why these workers of the run's pool do not take it. Each worker has its hindrances with it, of
    which the first counts. The run's own worker is not among them, because it has reasons of its own.
    """
    groups: dict[WaitingFor, list[Row]] = {}
    for worker, codes in held_back:
        groups.setdefault(codes[0], []).append(worker)
    total = sum(len(workers) for workers in groups.values())
    for hindrance, workers in groups.items():
        code, word = _WORDS[hindrance]
        message, since, until, remedy = word(_Group(run, workers, _who(run, workers, total)))
        yield Reason(code, message, _pool(run), since=since, until=until, remedy=remedy)


def _who(run: Row, workers: list[Row], total: int) -> str:
    """Returns whom a sentence is about, as its beginning: `2 of the 3 workers of pool linux`."""
    pool = f"{'other ' if run['worker_is_member'] else ''}workers of pool {run['pool_name']}"
    if total == 1:
        return f"Worker {workers[0]['label']}, the only one of the {pool},"
    if len(workers) == total:
        return f"All {total} {pool}"
    return f"{len(workers)} of the {total} {pool}"


# What is told of one group: the message, since when and until when its hindrance lasts, and the remedy.
_Told = tuple[str, datetime | None, datetime | None, str | None]


def _revoked(group: _Group) -> _Told:
    message = group.say("has no token.", "have no token.")
    return message, None, None, f"Register them again (POST /workers/register), or {_ADD}"


def _disabled(group: _Group) -> _Told:
    message = group.say("is disabled.", "are disabled.")
    remedy = f"Enable one with PATCH /workers/:id (disabled: false), or {_ADD}"
    return message, group.last("disabled_at"), None, remedy


def _limited(group: _Group) -> _Told:
    until = group.first("limited_until")
    what = f"no runs until {group.words(until)}, because the usage limit of"
    message = group.say(
        f"gets {what} its account was reached.",
        f"get {what} their accounts was reached.",
    )
    remedy = f"Wait until then, try at once with PATCH /workers/:id (limitedUntil: null), or {_ADD}"
    return message, None, until, remedy


def _offline(group: _Group) -> _Told:
    seen = group.last("called_until")
    message = (
        group.say("has never called.", "have never called.")
        if seen is None
        else group.say(
            f"is offline since {group.words(seen)}.",
            f"are offline, the last one since {group.words(seen)}.",
        )
    )
    return message, seen, None, START_ONE


def _unapproved(group: _Group) -> _Told:
    what = "not approved for triggers with MCP headers."
    remedy = f"Approve one with POST /workers/:id/approve, or {_ADD}"
    return group.say(f"is {what}", f"are {what}"), group.first("unapproved_since"), None, remedy


def _lacks_approvals(group: _Group) -> _Told:
    message = group.say("can't wait for approvals.", "can't wait for approvals.")
    return message, None, None, f"Update the program of one, or {_ADD}"


def _passed_over(group: _Group) -> _Told:
    until = group.run["avoided_until"]
    at = moment_words(until, group.run["now"], to_the_second=True)
    message = f"Worker {group.workers[0]['label']} failed the attempt before, so it may take this one only from {at}."
    return message, None, until, None


def _full(group: _Group) -> _Told:
    message = group.say("holds as many runs as it may.", "hold as many runs as they may.")
    remedy = f"Wait until one of these runs ends, raise maxConcurrency with PATCH /workers/:id, or {_ADD}"
    return message, group.last("last_claimed_at"), None, remedy


# For each hindrance of a worker, the code under which it is told of workers of a pool, and its words.
_WORDS: dict[WaitingFor, tuple[WaitingFor, Callable[[_Group], _Told]]] = {
    WaitingFor.WORKER_REVOKED: (WaitingFor.WORKER_REVOKED, _revoked),
    WaitingFor.WORKER_DISABLED: (WaitingFor.WORKER_DISABLED, _disabled),
    WaitingFor.WORKER_LIMITED: (WaitingFor.WORKER_LIMITED, _limited),
    WaitingFor.WORKER_OFFLINE: (WaitingFor.POOL_OFFLINE, _offline),
    WaitingFor.WORKER_UNAPPROVED: (WaitingFor.WORKER_UNAPPROVED, _unapproved),
    WaitingFor.WORKER_LACKS_APPROVALS: (WaitingFor.WORKER_LACKS_APPROVALS, _lacks_approvals),
    WaitingFor.FIRST_WORKER: (WaitingFor.FIRST_WORKER, _passed_over),
    WaitingFor.WORKER_FULL: (WaitingFor.POOL_FULL, _full),
}


def _pool(run: Row) -> Subject:
    return Subject("pool", run["pool_id"], run["pool_name"])
