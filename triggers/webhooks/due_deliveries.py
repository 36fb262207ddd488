"""Picks the due webhook deliveries that a sender sends next. A sender sends a limited number of deliveries at once.
Workspaces take turns, so that deliveries of one tenant or to one host do not keep all others waiting (SPEC §7, §19).

The query goes through the pairs of an environment and a host that have pending deliveries, and reads only a few due
deliveries of each pair. Its cost therefore does not grow with the number of due deliveries, and many deliveries to a
slow host do not hide those to other hosts.
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
    """The workspace, environment and host of a delivery that is being sent. A sender sends a limited number of
    deliveries at once, and counts by these three how many of them belong to each workspace and environment and go to
    each host.
    """

    workspace_id: UUID
    environment_id: UUID
    host: str


# How long a sender's claim of a delivery lasts, in seconds. Sending it and recording the result takes less time.
CLAIM_SECONDS = 60
# How many pairs of an environment and a host one query goes through. The next query continues after them.
_MOST_PAIRS = 1_000
# For how many workspaces, at most, a sender remembers when it last sent a delivery of theirs.
_MOST_REMEMBERED = 10_000

_BEFORE_ALL = (UUID(int=0), "")

# Finds due deliveries that may be sent now. A sender sends a limited number of deliveries at once, its places, and an
# environment, a workspace and a host may each take only a part of them. The recursion reads the index
# `delivery_pending_by_host` once for each pair of an environment and a host. It skips the other hosts of an environment
# that has as many places as it may have. If nothing is due, it reads one entry of `delivery_due_by_host` and stops.
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

# Claims deliveries. One that another sender has claimed before is no longer due, and one that another sender is
# claiming at this moment is skipped. The encrypted secret is read too, because the request is sent right after.
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
    """What one sender remembers about which workspace it serves next. If the sender's process dies, this is lost, and a
    workspace waits for one turn longer at most.
    """

    # For each workspace, how many deliveries this sender had claimed when it last served the workspace. The workspace
    # served last is the last key.
    served: dict[UUID, int] = field(default_factory=dict)
    # The environment and the host after which the next query begins.
    after: tuple[UUID, str] = _BEFORE_ALL
    _count: int = 0

    def serve(self, workspace_id: UUID) -> None:
        """Remembers that the workspace has just been served."""
        self._count += 1
        self.served.pop(workspace_id, None)
        self.served[workspace_id] = self._count
        if len(self.served) > _MOST_REMEMBERED:
            del self.served[next(iter(self.served))]


def taker_of(delivery: Row) -> Taker:
    return Taker(delivery["workspace_id"], delivery["environment_id"], delivery["host"])


def claim_deliveries(
    *,
    room: int,
    busy: Mapping[Taker, int],
    per_host: int,
    turns: Turns | None = None,
    now: datetime | None = None,
) -> list[Row]:
    """Claims up to `room` due deliveries and returns their rows. Pass each row to `send_delivery` at once.

    A sender sends a limited number of deliveries at once, so it has that number of places, and each delivery takes one
    while it is sent. `busy` says how many places are taken already, and by whom. Each free place goes to the workspace
    that has the fewest, and among equals to the workspace that was served longest ago. There are three limits:

    - A host has at most `per_host` places.
    - A workspace has at most as many places as stay free: half of all, if it is the only one. A workspace without a
      place therefore always finds a free one.
    - An environment has at most as many places as stay free, less those of its workspace: a third of all, if it is
      the only one. The other environments of the workspace therefore always find a free one.
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
    """Counts who has taken how many of a sender's places, and decides who gets the next one. A sender has as many
    places as the deliveries that it may send at once.
    """

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
        """Chooses deliveries for the free places of the sender, and returns their ids."""
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
    """Returns due deliveries that the sender may send now: for each environment and host, those that have been due
    longest.

    It begins after the environment and host at which the last query stopped. If it finds nothing from there to the end,
    it begins again with the first.
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
