"""Picks the due messages of one kind that a sender sends next. A sender sends a limited number of messages at once.
Workspaces take turns, so that messages of one tenant or to one host do not keep all others waiting (SPEC §7, §19).

The query goes through the pairs of an environment and a host that have pending messages, and reads only a few due
messages of each pair. Its cost therefore does not grow with the number of due messages, and many messages to a slow
host do not hide those to other hosts. Mails that belong to no environment take turns by the recipients' domains.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from heapq import heapify, heappop, heapreplace
from typing import Any, NamedTuple
from uuid import UUID

from django.db import transaction

from pipedai.outgoing.kinds import Kind
from pipedai.outgoing.mails import MAIL_HOST, is_mail
from pipedai.sql import NOW, Row, fetch_all, without_sorting


class Taker(NamedTuple):
    """The workspace, environment and host of a message that is being sent. A sender sends a limited number of messages
    at once, and counts by these three how many of them belong to each workspace and environment and go to each host.

    A message without an environment has its own id in place of the environment's, and in place of the workspace's the
    MD5 of its recipient's domain, of which only the last two labels count: a domain may have any number of subdomains.
    """

    workspace_id: UUID
    environment_id: UUID
    host: str


# How long a sender's claim of a message lasts, in seconds. Sending it and recording the result takes less time.
CLAIM_SECONDS = 60
# How many pairs of an environment and a host one query goes through. The next query continues after them.
_MOST_PAIRS = 1_000
# For how many workspaces, at most, a sender remembers when it last sent a message of theirs.
_MOST_REMEMBERED = 10_000

_BEFORE_ALL = (UUID(int=0), "")


def _domain_of(host: str) -> str:
    """Returns the SQL of what stands in place of the workspace's id in mails that belong to nobody."""
    return f"md5(coalesce(substring({host} from '[^.@]+[.][^.]+$'), {host}))::uuid"


@lru_cache(maxsize=16)
def _candidates(kind: Kind) -> str:
    """Returns the query that finds due messages which may be sent now. A sender has one share for each message that it
    may send at once. An environment, a workspace and a host may each take only a part of the shares.

    The recursion reads the index `…_pending_by_host` once for each pair of an environment and a host. When an
    environment has as many shares as it may have, the recursion skips the environment's other hosts. If nothing is due,
    the query reads one entry of `…_due_by_host` and stops.
    """
    if kind.tenants is None:
        return _candidates_of_nobody(kind)
    return f"""
WITH RECURSIVE pair (environment_id, host, due_at, step) AS (
    (SELECT environment_id, host, next_attempt_at, 1 FROM {kind.table}
    WHERE status = 'pending' AND (environment_id, host) > (%(after_environment)s::uuid, %(after_host)s)
        AND {NOW} >= (
            SELECT next_attempt_at FROM {kind.table} WHERE status = 'pending' ORDER BY next_attempt_at LIMIT 1)
    ORDER BY environment_id, host, next_attempt_at LIMIT 1)
    UNION ALL
    SELECT later.*, pair.step + 1 FROM pair CROSS JOIN LATERAL (
        (SELECT environment_id, host, next_attempt_at FROM {kind.table}
        WHERE status = 'pending' AND environment_id = pair.environment_id AND host > pair.host
            AND pair.environment_id NOT IN (SELECT id FROM full_environment)
        ORDER BY host, next_attempt_at LIMIT 1)
        UNION ALL
        (SELECT environment_id, host, next_attempt_at FROM {kind.table}
        WHERE status = 'pending' AND environment_id > pair.environment_id
        ORDER BY environment_id, host, next_attempt_at LIMIT 1)
        ORDER BY environment_id LIMIT 1) later
    WHERE pair.step < %(most_pairs)s),
full_environment AS (
    SELECT id FROM {kind.tenants} WHERE workspace_id = ANY(%(full_workspaces)s::uuid[])
    UNION ALL SELECT unnest(%(full_environments)s::uuid[]))
SELECT pair.environment_id, pair.host, pair.step, e.workspace_id, due.id, due.next_attempt_at, due.attempt_count
FROM pair JOIN {kind.tenants} e ON e.id = pair.environment_id LEFT JOIN LATERAL (
    SELECT id, next_attempt_at, attempt_count FROM {kind.table}
    WHERE status = 'pending' AND environment_id = pair.environment_id AND host = pair.host
        AND next_attempt_at <= {NOW} AND pair.host <> ALL(%(full_hosts)s)
        AND pair.environment_id NOT IN (SELECT id FROM full_environment)
    ORDER BY next_attempt_at LIMIT %(per_pair)s) due ON true
WHERE due.id IS NOT NULL OR pair.step = %(most_pairs)s
"""


def _candidates_of_nobody(kind: Kind) -> str:
    """Returns the query for mails that belong to no environment, which looks at each host as the other one does at each
    pair.
    """
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
    SELECT id, next_attempt_at, attempt_count FROM {kind.table}
    WHERE status = 'pending' AND host = pair.host AND next_attempt_at <= {NOW} AND pair.host <> ALL(%(full_hosts)s)
    ORDER BY next_attempt_at LIMIT %(per_pair)s) due ON true
WHERE due.id IS NOT NULL OR pair.step = %(most_pairs)s
"""


@lru_cache(maxsize=16)
def _claim(kind: Kind) -> str:
    """Returns the statement that claims messages. It skips a message that another sender has claimed before, because
    that is no longer due, and one that another sender is claiming at this moment. It also reads what the kind needs to
    make the messages, because they are sent right after.

    Whether a message is still due stands in a CASE, which no index answers, so that PostgreSQL looks the messages up by
    their ids. Otherwise it may read all pending messages of their environments instead.
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
    """What one sender remembers: which workspace it serves next, and which hosts answer. If the sender's process dies,
    this is lost: a workspace waits at most one turn longer, and each host has one share until it answers.

    A host that has never answered this sender, or kept it waiting in vain the last time, is unproven. Most hosts
    answer within milliseconds, so a new host is proven soon, while a dead host holds its one share for as long as an
    attempt may take.
    """

    # Whether every host counts as proven.
    trusting: bool = False
    # For each workspace, how many messages this sender had claimed when it last served the workspace. The workspace
    # served last is the last key.
    served: dict[UUID, int] = field(default_factory=dict)
    # The environment and the host after which the next query begins.
    after: tuple[UUID, str] = _BEFORE_ALL
    _count: int = 0
    # The hosts that answered the last time, the one that answered last being the last key.
    _proven: dict[str, None] = field(default_factory=dict)
    # Threads that send note what they saw, while the scheduler's own thread reads.
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, workspace_id: UUID) -> None:
        """Remembers that the workspace has just been served."""
        self._count += 1
        _put_last(self.served, workspace_id, self._count)

    def note(self, host: str, *, answered: bool) -> None:
        """Remembers whether the host answered an attempt, with whatever status."""
        with self._lock:
            self._proven.pop(host, None)
            if answered:
                _put_last(self._proven, host, None)

    def proven(self) -> frozenset[str]:
        """Returns the hosts that answered the last time, and that of mails from earlier releases."""
        with self._lock:
            return frozenset((*self._proven, MAIL_HOST))


def _put_last(known: dict[Any, Any], key: Any, value: Any) -> None:
    known.pop(key, None)
    known[key] = value
    if len(known) > _MOST_REMEMBERED:
        del known[next(iter(known))]


def claim_due(
    kind: Kind,
    *,
    room: int,
    busy: Mapping[Taker, int],
    per_host: int,
    memory: Memory | None = None,
    now: datetime | None = None,
) -> list[Row]:
    """Claims up to `room` due messages of a kind and returns their rows. Pass each row to `attempts.send` at once.

    A sender sends a limited number of messages at once, so it has that number of shares, and each message takes one
    while it is sent. `busy` says how many shares are taken already, and by whom. Each free share goes to the workspace
    that has the fewest, and among equals to the workspace that was served longest ago. There are five limits:

    - A host has at most `per_host` shares, and one if it is unproven (see Memory). Without a `memory` every
      host counts as proven.
    - All unproven hosts together have at most three quarters of all shares. Hosts that answer therefore find free
      shares, however many hosts are dead.
    - A workspace has at most as many shares as stay free: half of all, if it is the only one. A workspace without a
      share therefore always finds a free one.
    - An environment has at most as many shares as stay free, less those of its workspace: a third of all, if it is
      the only one. The other environments of the workspace therefore always find a free one.
    - Mails have at most `kind.mails` shares, and one of these is kept for first attempts. So domains that stall over
      each mail delay nobody's first mail.
    """
    memory = memory or Memory(trusting=True)
    shares = _Shares(busy, room, per_host, memory, kind.mails)
    # Both statements are in one transaction, as each transaction costs as much as a statement.
    with transaction.atomic():
        chosen = shares.fill(_look(kind, shares, memory, now))
        if not chosen:
            return []
        params = {
            "ids": [row["id"] for row in chosen],
            "environment_ids": list({row["environment_id"] for row in chosen}),
            "claim_seconds": CLAIM_SECONDS,
            "now": now,
        }
        return fetch_all(_claim(kind), params)


class _Shares:
    """Counts who has taken how many of a sender's shares, and decides who gets the next one. A sender has as many
    shares as the messages that it may send at once.
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
        # How many more shares unproven hosts may take, and how many more mails.
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

    def fill(self, candidates: list[Row]) -> list[Row]:
        """Chooses messages for the free shares of the sender, and returns these candidates.

        A message that is chosen can only move others of its workspace further back, and leave them less room. So the
        heap's first candidate is the next one if it still has its old order.
        """
        chosen: list[Row] = []
        waiting = [(self._order(row), n, row) for n, row in enumerate(candidates)]
        heapify(waiting)
        while self.room > 0 and waiting:
            order, n, first = waiting[0]
            if not self._has_room(first):
                heappop(waiting)
            elif (present := self._order(first)) != order:
                heapreplace(waiting, (present, n, first))
            else:
                heappop(waiting)
                self._take(taker_of(first), 1)
                self.room -= 1
                self._memory.serve(first["workspace_id"])
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
        """Returns how many shares the host may have."""
        return self.per_host if self._is_proven(host) else 1

    def _order(self, candidate: Row) -> tuple[int, int, int, datetime]:
        workspace_id = candidate["workspace_id"]
        return (
            self.workspaces[workspace_id],
            self._memory.served.get(workspace_id, 0),
            self.environments[candidate["environment_id"]],
            candidate["next_attempt_at"],
        )


def _look(kind: Kind, shares: _Shares, memory: Memory, now: datetime | None) -> list[Row]:
    """Returns due messages that the sender may send now: for each environment and host, those that have been due
    longest.

    It begins after the environment and host at which the last query stopped. If it finds nothing from there to the end,
    it begins again with the first.
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
        rows = fetch_all(_candidates(kind), params | after)
    last = next((row for row in rows if row["step"] == _MOST_PAIRS), None)
    memory.after = _BEFORE_ALL if last is None else (last["environment_id"], last["host"])
    found = [row for row in rows if row["id"] is not None]
    if not found and last is None and began_at != _BEFORE_ALL:
        return _look(kind, shares, memory, now)
    return found
