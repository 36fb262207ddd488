"""Picks the due rows of a queue, such as messages, on which a scheduler's threads work next. Workspaces take turns.

The query reads a few due messages of each pair of an environment and a host. So its cost does not grow with the number
of due messages, and those of a slow host hide no others. Mails without an environment take turns by domain.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from heapq import heapify, heappop, heapreplace
from typing import Any, NamedTuple, cast
from uuid import UUID

from django.db import transaction

from pipedai.ids import new_id
from pipedai.outgoing.kinds import Kind, Queue
from pipedai.outgoing.mails import is_mail
from pipedai.sql import NOW, Row, execute, fetch_all, without_sorting


class Taker(NamedTuple):
    """The workspace, environment and host of a message that is being sent, by which a sender counts its shares. If
    there is no environment, the message's own id stands for it, and the MD5 of the last two labels of the recipient's
    domain for the workspace.
    """

    workspace_id: UUID
    environment_id: UUID
    host: str


# How long a sender's claim of a message lasts, in seconds. Sending it and recording the result takes less time.
CLAIM_SECONDS = 60
# How many pairs of an environment and a host one query goes through. The next query continues after them.
_MOST_PAIRS = 1_000
# A sender remembers for at most this many workspaces when it last sent a message of theirs.
_MOST_REMEMBERED = 10_000

_BEFORE_ALL = (UUID(int=0), "")

# Makes schedulers claim rows of a table one after another, until the transaction ends.
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended(%(table)s, 0))"


def _domain_of(host: str) -> str:
    """Returns the SQL of the value that stands for the workspace's id of a mail that belongs to no workspace."""
    return f"md5(coalesce(substring({host} from '[^.@]+[.][^.]+$'), {host}))::uuid"


@lru_cache(maxsize=16)
def _candidates(queue: Queue) -> str:
    """Returns the query for due rows that may be taken now. It visits each pair of an environment and a host in the
    partial index that begins with these columns. If an environment has used up its shares, the query skips its other
    hosts. If nothing is due, it reads only one entry of the index of due times.
    """
    if queue.tenants is None:
        return _candidates_of_nobody(queue)
    table, host, due_at, waits = queue.table, queue.host, queue.due_at, queue.waits
    return f"""
WITH RECURSIVE pair (environment_id, host, due_at, step) AS (
    (SELECT environment_id, {host}, {due_at}, 1 FROM {table}
    WHERE {waits} AND (environment_id, {host}) > (%(after_environment)s::uuid, %(after_host)s)
        AND {NOW} >= (
            SELECT {due_at} FROM {table} WHERE {queue.waits_somewhere} ORDER BY {due_at} LIMIT 1)
    ORDER BY environment_id, {host}, {due_at} LIMIT 1)
    UNION ALL
    SELECT later.*, pair.step + 1 FROM pair CROSS JOIN LATERAL (
        (SELECT environment_id, {host}, {due_at} FROM {table}
        WHERE {waits} AND environment_id = pair.environment_id AND {host} > pair.host
            AND pair.environment_id NOT IN (SELECT id FROM full_environment)
        ORDER BY {host}, {due_at} LIMIT 1)
        UNION ALL
        (SELECT environment_id, {host}, {due_at} FROM {table}
        WHERE {waits} AND environment_id > pair.environment_id
        ORDER BY environment_id, {host}, {due_at} LIMIT 1)
        ORDER BY environment_id LIMIT 1) later
    WHERE pair.step < %(most_pairs)s),
full_environment AS (
    SELECT id FROM {queue.tenants} WHERE workspace_id = ANY(%(full_workspaces)s::uuid[])
    UNION ALL SELECT unnest(%(full_environments)s::uuid[]))
SELECT pair.environment_id, pair.host, pair.step, e.workspace_id, due.*
FROM pair JOIN {queue.tenants} e ON e.id = pair.environment_id LEFT JOIN LATERAL (
    SELECT d.id, {due_at} AS next_attempt_at, {queue.tries} AS attempt_count, {queue.by_whom} AS by_whom
    FROM {table} d
    WHERE {waits} AND environment_id = pair.environment_id AND {host} = pair.host
        AND {due_at} <= {NOW} AND pair.host <> ALL(%(full_hosts)s)
        AND pair.environment_id NOT IN (SELECT id FROM full_environment) AND {queue.is_free}
    ORDER BY {due_at} LIMIT %(per_pair)s) due ON true
WHERE due.id IS NOT NULL OR pair.step = %(most_pairs)s
"""


def _candidates_of_nobody(kind: Queue) -> str:
    """Returns the query for due mails that belong to no environment. It visits each host."""
    return f"""
WITH RECURSIVE pair (host, step) AS (
    (SELECT host, 1 FROM {kind.table}
    WHERE status = 'pending' AND host > %(after_host)s
        AND {NOW} >= (
            SELECT next_attempt_at FROM {kind.table} WHERE status = 'pending' ORDER BY next_attempt_at LIMIT 1)
    ORDER BY host LIMIT 1)
    UNION ALL
    SELECT later.host, pair.step + 1 FROM pair CROSS JOIN LATERAL (
        SELECT host FROM {kind.table} WHERE status = 'pending' AND host > pair.host ORDER BY host LIMIT 1) later
    WHERE pair.step < %(most_pairs)s)
SELECT due.id AS environment_id, {_domain_of("pair.host")} AS workspace_id, pair.host, pair.step, due.*
FROM pair LEFT JOIN LATERAL (
    SELECT id, next_attempt_at, attempt_count, NULL::uuid AS by_whom FROM {kind.table}
    WHERE status = 'pending' AND host = pair.host AND next_attempt_at <= {NOW} AND pair.host <> ALL(%(full_hosts)s)
    ORDER BY next_attempt_at LIMIT %(per_pair)s) due ON true
WHERE due.id IS NOT NULL OR pair.step = %(most_pairs)s
"""


@lru_cache(maxsize=16)
def _claim(kind: Kind) -> str:
    """Returns the statement that claims messages and reads the columns from which they are made. It skips messages that
    another sender has claimed. No index fits the CASE, so PostgreSQL looks up rows by id instead of reading all pending
    ones.
    """
    reads = f", {kind.reads}" if kind.reads else ""
    if kind.tenants is None:
        tenant = f"d.id AS environment_id, {_domain_of('d.host')} AS workspace_id"
        joins = kind.joins
        key, of_environments, is_free = "id", "", "claimed.id = free.id"
    else:
        # The conditions on the environment let PostgreSQL read one partition if the table is partitioned by it.
        key, of_environments = (
            "id, environment_id",
            " AND environment_id = ANY(%(environment_ids)s)",
        )
        is_free = "claimed.id = free.id AND claimed.environment_id = free.environment_id"
        tenant, joins = (
            "e.workspace_id",
            f"JOIN {kind.tenants} e ON e.id = d.environment_id {kind.joins}",
        )
    return f"""
WITH free AS MATERIALIZED (
    SELECT {key} FROM {kind.table} WHERE id = ANY(%(ids)s){of_environments}
        AND CASE WHEN status = 'pending' THEN next_attempt_at <= {NOW} ELSE false END
    FOR UPDATE SKIP LOCKED),
d AS (
    UPDATE {kind.table} claimed SET next_attempt_at = {NOW} + %(claim_seconds)s * interval '1 second'
    FROM free WHERE {is_free} RETURNING claimed.*)
SELECT d.*, d.next_attempt_at AS claim, {NOW} AS claimed_at, {tenant}{reads}
FROM d {joins}
"""


def taker_of(message: Row) -> Taker:
    return Taker(message["workspace_id"], message["environment_id"], message["host"])


@dataclass
class Memory:
    """What one sender remembers: which workspace or user it serves next, and which hosts answer. A host that has never
    answered this sender, or did not answer the last time, is unproven and has one share at most. After a restart all
    hosts are unproven until they answer.
    """

    # Whether every host counts as proven.
    trusting: bool = False
    # For each workspace or user, how many messages this sender had claimed when it last served them. The key of the
    # one that was served last comes last.
    served: dict[UUID, int] = field(default_factory=dict)
    # The environment and the host after which the next query begins.
    after: tuple[UUID, str] = _BEFORE_ALL
    _count: int = 0
    # The hosts that answered their last attempt. The host with the most recent answer is the last key.
    _proven: dict[str, None] = field(default_factory=dict)
    # Sending threads write to this memory while the scheduler's main thread reads it.
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, *ids: UUID | None) -> None:
        self._count += 1
        for id_ in filter(None, ids):
            _put_last(self.served, id_, self._count)

    def note(self, host: str, *, answered: bool) -> None:
        """Remembers whether the host answered an attempt. An answer of any status counts."""
        with self._lock:
            self._proven.pop(host, None)
            if answered:
                _put_last(self._proven, host, None)

    def proven(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._proven)


def _put_last(known: dict[Any, Any], key: Any, value: Any) -> None:
    known.pop(key, None)
    known[key] = value
    if len(known) > _MOST_REMEMBERED:
        del known[next(iter(known))]


def claim_due(
    queue: Queue,
    *,
    room: int,
    busy: Mapping[Taker, int],
    per_host: int,
    memory: Memory | None = None,
    now: datetime | None = None,
) -> list[Row]:
    """Claims up to `room` due rows and returns them. The caller must begin with each at once. A share is the right to
    send one message now, and `busy` counts the taken ones. A free share goes to the workspace that has fewest.

    - A host has at most `per_host` shares, and only one if it is unproven; without a `memory` all are proven. All
    unproven hosts together have at most three quarters of the shares, so that the others always find free ones.

    - A workspace takes at most as many shares as stay free, and an environment at most as many as stay free less those
    of its workspace, so that others always find a free one.

    - Mails have at most `queue.mails` shares. One of them is only for first attempts, so that slow domains delay no
    first attempt of another mail.
    """
    memory = memory or Memory(trusting=True)
    shares = _Shares(busy, room, per_host, memory, queue.mails)
    # All statements are in one transaction, as each transaction costs as much as a statement.
    with transaction.atomic():
        if queue.one_by_one:
            execute(_ONE_AT_A_TIME, {"table": queue.table})
        candidates = _look(queue, shares, memory, now)
        chosen = shares.fill(candidates, most=1 if queue.one_by_one else None)
        if not chosen:
            return []
        params = {
            "ids": [row["id"] for row in chosen],
            "environment_ids": list({row["environment_id"] for row in chosen}),
            "claim_seconds": CLAIM_SECONDS,
            "lease_id": new_id(),
            "now": now,
        }
        return fetch_all(queue.claims or _claim(cast("Kind", queue)), params)


class _Shares:
    """Counts how many of a sender's shares each workspace and host has taken, and decides which workspace gets the next
    one.
    """

    def __init__(
        self,
        busy: Mapping[Taker, int],
        room: int,
        per_host: int,
        memory: Memory,
        mails: int = 0,
    ) -> None:
        self.room, self.per_host, self._memory = room, per_host, memory
        self._proven = memory.proven()
        total = room + sum(busy.values())
        # How many more shares unproven hosts may take, and how many more shares mails may take.
        self._unproven_room = max(1, total * 3 // 4)
        self._mail_room = mails
        # How many shares for mails are kept for first attempts.
        self._kept = int(total > 1)
        self.workspaces: Counter[UUID] = Counter()
        self.environments: Counter[UUID] = Counter()
        self.hosts: Counter[str] = Counter()
        self._workspace_of: dict[UUID, UUID] = {}
        for taker, count in busy.items():
            self._take(taker, count)

    def _take(self, taker: Taker, count: int) -> None:
        self.workspaces[taker.workspace_id] += count
        self.environments[taker.environment_id] += count
        self.hosts[taker.host] += count
        if not self._is_proven(taker.host):
            self._unproven_room -= count
        if is_mail(taker.host):
            self._mail_room -= count
        self._workspace_of[taker.environment_id] = taker.workspace_id

    @property
    def full_hosts(self) -> list[str]:
        return [host for host, count in self.hosts.items() if count >= self._most(host)]

    @property
    def full_workspaces(self) -> list[UUID]:
        return [id_ for id_, count in self.workspaces.items() if count >= self.room]

    @property
    def full_environments(self) -> list[UUID]:
        return [
            id_
            for id_, count in self.environments.items()
            if count >= self.room - self.workspaces[self._workspace_of[id_]]
        ]

    def fill(self, candidates: list[Row], *, most: int | None = None) -> list[Row]:
        """Chooses at most `most` rows for the free shares. Choosing a row can only move other rows of its workspace
        further back. So the heap's first row is the next choice if its order has not changed since it was pushed.
        """
        chosen: list[Row] = []
        waiting = [(self._order(row), n, row) for n, row in enumerate(candidates)]
        heapify(waiting)
        while self.room > 0 and waiting and len(chosen) != most:
            order, n, first = waiting[0]
            if not self._has_room(first):
                heappop(waiting)
            elif (present := self._order(first)) != order:
                heapreplace(waiting, (present, n, first))
            else:
                heappop(waiting)
                self._take(taker_of(first), 1)
                self.room -= 1
                self._memory.serve(first["workspace_id"], first.get("by_whom"))
                chosen.append(first)
        return chosen

    def _has_room(self, candidate: Row) -> bool:
        left = self.room - self.workspaces[candidate["workspace_id"]]
        host = candidate["host"]
        rooms = [self.room]
        if not self._is_proven(host):
            rooms.append(self._unproven_room)
        if is_mail(host):
            rooms.append(self._mail_room)
        kept = self._kept if is_mail(host) and candidate["attempt_count"] else 0
        return (
            self.environments[candidate["environment_id"]] < left
            and self.hosts[host] < self._most(host)
            and min(rooms) > kept
        )

    def _is_proven(self, host: str) -> bool:
        return self._memory.trusting or host in self._proven

    def _most(self, host: str) -> int:
        return self.per_host if self._is_proven(host) else 1

    def _order(self, candidate: Row) -> tuple[int, int, int, datetime]:
        workspace_id, served = candidate["workspace_id"], self._memory.served
        return (
            self.workspaces[workspace_id],
            max(
                served.get(workspace_id, 0), served.get(candidate.get("by_whom") or workspace_id, 0)
            ),
            self.environments[candidate["environment_id"]],
            candidate["next_attempt_at"],
        )


def _look(queue: Queue, shares: _Shares, memory: Memory, now: datetime | None) -> list[Row]:
    """Returns due rows, for each pair of an environment and a host those that have been due longest. It begins after
    the pair where the last query stopped, and starts over with the first pair if it finds none.
    """
    params = {
        "full_hosts": shares.full_hosts,
        "full_workspaces": shares.full_workspaces,
        "full_environments": shares.full_environments,
        "per_pair": min(shares.per_host, shares.room),
        "room": shares.room,
        "most_pairs": _MOST_PAIRS,
        "now": now,
    }
    began_at = memory.after
    after = {"after_environment": memory.after[0], "after_host": memory.after[1]}
    with without_sorting():
        rows = fetch_all(_candidates(queue), params | after)
    last = next((row for row in rows if row["step"] == _MOST_PAIRS), None)
    memory.after = _BEFORE_ALL if last is None else (last["environment_id"], last["host"])
    found = [row for row in rows if row["id"] is not None]
    if not found and last is None and began_at != _BEFORE_ALL:
        return _look(queue, shares, memory, now)
    return found
