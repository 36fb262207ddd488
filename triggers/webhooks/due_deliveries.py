"""Claims due deliveries for a sender: workspaces take turns, and no host or tenant fills the sender (SPEC §7, §19).

A look walks along the hosts that have something pending, environment by environment, and reads of each no more than a
few due deliveries. So its cost does not grow with how much is due, and what waits behind a slow host is passed over
at once.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.db import transaction

from pipedai.sql import NOW, Row, fetch_all


class Taker(NamedTuple):
    """Whose places in a sender a delivery takes."""

    workspace_id: UUID
    environment_id: UUID
    host: str


# Longer than a request takes together with what comes before and after it.
CLAIM_SECONDS = 60
# How many pairs of an environment and a host one look walks along; the next look goes on after them.
_MOST_PAIRS = 1_000
# How many workspaces a sender remembers to have served.
_MOST_REMEMBERED = 10_000

_BEFORE_ALL = (UUID(int=0), "")

# Along the index `delivery_pending_by_host`, one look into it for each pair. An environment that may have no further
# place is left after its first pair. When nothing is due, one look into another index is all.
_CANDIDATES = f"""
WITH RECURSIVE pair (environment_id, host, due_at, step) AS (
    (SELECT environment_id, host, next_attempt_at, 1 FROM delivery
    WHERE status = 'pending' AND (environment_id, host) > (%(after_environment)s::uuid, %(after_host)s)
        AND {NOW} >= (
            SELECT next_attempt_at FROM delivery WHERE status = 'pending' ORDER BY next_attempt_at LIMIT 1)
    ORDER BY environment_id, host, next_attempt_at LIMIT 1)
    UNION ALL
    SELECT later.*, pair.step + 1 FROM pair CROSS JOIN LATERAL (
        (SELECT environment_id, host, next_attempt_at FROM delivery
        WHERE status = 'pending' AND environment_id = pair.environment_id AND host > pair.host
            AND pair.environment_id NOT IN (SELECT id FROM full_environment)
        ORDER BY host, next_attempt_at LIMIT 1)
        UNION ALL
        (SELECT environment_id, host, next_attempt_at FROM delivery
        WHERE status = 'pending' AND environment_id > pair.environment_id
        ORDER BY environment_id, host, next_attempt_at LIMIT 1)
        ORDER BY environment_id LIMIT 1) later
    WHERE pair.step < %(most_pairs)s),
full_environment AS (
    SELECT id FROM environment WHERE workspace_id = ANY(%(full_workspaces)s::uuid[])
    UNION ALL SELECT unnest(%(full_environments)s::uuid[]))
SELECT pair.environment_id, pair.host, pair.step, e.workspace_id, due.id, due.next_attempt_at
FROM pair JOIN environment e ON e.id = pair.environment_id LEFT JOIN LATERAL (
    SELECT id, next_attempt_at FROM delivery
    WHERE status = 'pending' AND environment_id = pair.environment_id AND host = pair.host
        AND next_attempt_at <= {NOW} AND pair.host <> ALL(%(full_hosts)s)
        AND pair.environment_id NOT IN (SELECT id FROM full_environment)
    ORDER BY next_attempt_at LIMIT %(per_pair)s) due ON true
WHERE due.id IS NOT NULL OR pair.step = %(most_pairs)s
"""

# What another sender has claimed meanwhile is not due any more, and what it is claiming is skipped. The secret is read
# with the claim: the request follows at once.
_CLAIM = f"""
WITH free AS MATERIALIZED (
    SELECT id FROM delivery WHERE id = ANY(%(ids)s) AND status = 'pending' AND next_attempt_at <= {NOW}
    FOR UPDATE SKIP LOCKED)
UPDATE delivery d SET next_attempt_at = {NOW} + %(claim_seconds)s * interval '1 second'
FROM free, trigger t JOIN environment e ON e.id = t.environment_id LEFT JOIN data_key k ON k.id = t.webhook_key_id
WHERE d.id = free.id AND t.id = d.trigger_id
RETURNING d.id, d.environment_id, d.trigger_id, d.run_id, d.message_id, d.url, d.host, d.body, d.attempt_count,
    d.next_attempt_at AS claim, {NOW} AS claimed_at, e.workspace_id, t.webhook_secret, k.id AS key_id,
    k.wrapped AS key_wrapped, k.master_key_id
"""


@dataclass
class Turns:
    """What one sender remembers of whose turn it was. Losing it with the process costs nobody more than a turn."""

    # When each workspace was last served, counted in deliveries; the latest comes last.
    served: dict[UUID, int] = field(default_factory=dict)
    # The pair of an environment and a host after which the next look begins.
    after: tuple[UUID, str] = _BEFORE_ALL
    _count: int = 0

    def serve(self, workspace_id: UUID) -> None:
        """The workspace has had a turn."""
        self._count += 1
        self.served.pop(workspace_id, None)
        self.served[workspace_id] = self._count
        if len(self.served) > _MOST_REMEMBERED:
            del self.served[next(iter(self.served))]


def taker_of(delivery: Row) -> Taker:
    """Whose places it takes."""
    return Taker(delivery["workspace_id"], delivery["environment_id"], delivery["host"])


def claim_deliveries(
    *,
    room: int,
    busy: Mapping[Taker, int],
    per_host: int,
    turns: Turns | None = None,
    now: datetime | None = None,
) -> list[Row]:
    """Claims up to `room` due deliveries. Each row is to be handed to `send_delivery` at once.

    The next place is the workspace's that has the fewest, of these the one's that was served longest ago. `busy` says
    who has which places already. With these, a host has no more than `per_host`; and a workspace no more than it
    leaves free, which is half of all if it is alone, so that the last one goes to a workspace that has none. An
    environment has no more than its workspace leaves to its other environments and to everybody else, which is a third.
    """
    turns = turns or Turns()
    places = _Places(busy, room, per_host)
    chosen = places.fill(_look(places, turns, now), turns)
    if not chosen:
        return []
    with transaction.atomic():
        params = {"ids": chosen, "claim_seconds": CLAIM_SECONDS, "now": now}
        return fetch_all(_CLAIM, params)


class _Places:
    """The places of a sender: who has them, and who may have the next one."""

    def __init__(self, busy: Mapping[Taker, int], room: int, per_host: int) -> None:
        self.room, self.per_host = room, per_host
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
        self._workspace_of[taker.environment_id] = taker.workspace_id

    @property
    def full_hosts(self) -> list[str]:
        return [host for host, count in self.hosts.items() if count >= self.per_host]

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

    def fill(self, candidates: list[Row], turns: Turns) -> list[UUID]:
        """Gives the free places to deliveries; their ids."""
        chosen: list[UUID] = []
        while self.room > 0 and (candidates := [c for c in candidates if self._has_room(c)]):
            first = min(candidates, key=lambda candidate: self._order(candidate, turns))
            candidates.remove(first)
            self._take(taker_of(first), 1)
            self.room -= 1
            turns.serve(first["workspace_id"])
            chosen.append(first["id"])
        return chosen

    def _has_room(self, candidate: Row) -> bool:
        left = self.room - self.workspaces[candidate["workspace_id"]]
        return (
            self.environments[candidate["environment_id"]] < left
            and self.hosts[candidate["host"]] < self.per_host
        )

    def _order(self, candidate: Row, turns: Turns) -> tuple[int, int, int, datetime]:
        workspace_id = candidate["workspace_id"]
        return (
            self.workspaces[workspace_id],
            turns.served.get(workspace_id, 0),
            self.environments[candidate["environment_id"]],
            candidate["next_attempt_at"],
        )


def _look(places: _Places, turns: Turns, now: datetime | None) -> list[Row]:
    """Due deliveries that may have a place: of each host of an environment those that have been due longest.

    One that begins in the middle, and finds nothing until the end, goes on at the beginning.
    """
    params = {
        "full_hosts": places.full_hosts,
        "full_workspaces": places.full_workspaces,
        "full_environments": places.full_environments,
        "per_pair": min(places.per_host, places.room),
        "most_pairs": _MOST_PAIRS,
        "now": now,
    }
    began_at = turns.after
    after = {"after_environment": turns.after[0], "after_host": turns.after[1]}
    rows = fetch_all(_CANDIDATES, params | after)
    last = next((row for row in rows if row["step"] == _MOST_PAIRS), None)
    turns.after = _BEFORE_ALL if last is None else (last["environment_id"], last["host"])
    found = [row for row in rows if row["id"] is not None]
    if not found and last is None and began_at != _BEFORE_ALL:
        return _look(places, turns, now)
    return found
