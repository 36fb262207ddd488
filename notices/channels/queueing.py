"""Decides which channels want an announcement, and queues their notices within the limits of the receivers.

An address, or a channel of Slack, gets at most `MAX_AN_HOUR` results of runs an hour, and as many other notices.
Notices beyond the limit are gathered in digests, so that many incidents at once make one mail.
"""

import json
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from notices.channels.announcements import Announcement, Digest, body_of
from notices.channels.consent import Standing, keep_consent, standings
from notices.models import Channel, Notice
from notices.states import ALWAYS, DIGEST, FAILED, RUN_RESULT
from pipedai.ids import new_id
from pipedai.outgoing.mails import mail_host
from pipedai.sql import NOW, Row, execute, fetch_all
from triggers.events.clauses import clauses_of, first_failing
from triggers.states import FAILURES

# Selects the channels that subscribe to one of the events. It locks none, because the scheduler tells of all tenants,
# and must not wait for one that is changing a channel. A channel that was paused or deleted meanwhile sends nothing.
_WANTING: Final = f"""
SELECT id, environment_id, kind, emails, host, events, trigger_ids, tells_when::text AS tells_when, {NOW} AS now
FROM channel
WHERE environment_id = ANY(%(environments)s) AND enabled AND deleted_at IS NULL AND events && %(events)s::varchar[]
ORDER BY id
"""  # noqa: S608


# The values of `tells_when`, a JSON text, that are no clauses.
_ALWAYS, _FAILED = json.dumps(ALWAYS), json.dumps(FAILED)


def channels_wanting(
    environments: Iterable[UUID], events: Iterable[str], *, now: datetime | None = None
) -> list[Row]:
    """Returns the channels that subscribe to one of the events."""
    params = {"environments": list(set(environments)), "events": list(set(events)), "now": now}
    return fetch_all(_WANTING, params)


def wants(channel: Row, announcement: Announcement) -> bool:
    return (
        announcement.environment_id == channel["environment_id"]
        and announcement.event in channel["events"]
        and (announcement.event != RUN_RESULT or _wants_result(channel, announcement))
    )


def _wants_result(channel: Row, announcement: Announcement) -> bool:
    """Returns whether a final outcome is of a trigger that the channel tells of, and fits its `when`."""
    run, when = announcement.about["run"], channel["tells_when"]
    if channel["trigger_ids"] is not None and run["triggerId"] not in channel["trigger_ids"]:
        return False
    if when == _ALWAYS or run["nothingNew"]:
        return bool(when == _ALWAYS)
    if when == _FAILED:
        return run["status"] in FAILURES
    # Each channel may search long strings as often as one alone, and all share what lists have been searched for.
    searched = replace(announcement.searched, characters=0)
    return first_failing(clauses_of(when), announcement.document, searched) is None


# An address or a channel of Slack gets at most this many results, and as many other notices, in an hour. The same
# numbers limit how many of its notices may be pending.
MAX_AN_HOUR: Final = 20
AN_HOUR: Final = timedelta(hours=1)
# How many notices of an environment may be pending. Its channels share what is left of it; those beyond it have no row,
# and one digest of each channel says how many they are.
MAX_PENDING: Final = 10_000
# How long the digest of a webhook gathers.
_GATHERS: Final = timedelta(minutes=1)
_BATCH: Final = 1_000

# Makes transactions that send to the same address, or by the same channel without addresses, wait for each other, so
# that the second one counts what the first one queued. Channels of other environments may have the address too. There
# are only 1,024 locks, so that a large batch does not fill the lock table.
_TAKE_TURNS: Final = """
SELECT pg_advisory_xact_lock(hashtextextended('notices to ' || n, 0)) FROM (
    SELECT DISTINCT hashtext(r) & 1023 AS n FROM unnest(%(receivers)s::text[]) r ORDER BY n) turn
"""

# Reads for each channel and address when its last results, or its last other notices, count against the hourly limit,
# how many of these are pending, and the digest that still gathers such notices.
_ROOM: Final = f"""
SELECT k.channel_id, k.address, k.tells_results, lately.times, lately.pending, digest.id AS digest_id, digest.body
FROM unnest(%(channels)s::uuid[], %(addresses)s::text[], %(results)s::boolean[]) k (channel_id, address, tells_results)
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE status = 'pending') AS pending,
        coalesce(
            array_agg(send_at ORDER BY send_at) FILTER (WHERE send_at > {NOW} - interval '1 hour'), '{{}}') AS times
    FROM (
        (SELECT send_at, status FROM notice
        WHERE k.address <> '' AND address = k.address AND address <> '' AND tells_results = k.tells_results
            AND status <> 'digested'
        ORDER BY send_at DESC LIMIT %(most)s)
        UNION ALL
        (SELECT send_at, status FROM notice
        WHERE k.address = '' AND channel_id = k.channel_id AND address = '' AND tells_results = k.tells_results
            AND status <> 'digested'
        ORDER BY send_at DESC LIMIT %(most)s)) n) lately
LEFT JOIN LATERAL (
    SELECT id, body FROM notice
    WHERE channel_id = k.channel_id AND address = k.address AND tells_results = k.tells_results
        AND event = '{DIGEST}' AND status = 'pending' AND next_attempt_at = send_at) digest ON true
"""  # noqa: S608

# Changes a digest that still gathers notices. If a sender has claimed it meanwhile, no row changes, and the caller
# makes a new digest.
_GATHER: Final = """
UPDATE notice SET body = %(body)s WHERE id = %(id)s AND status = 'pending' AND next_attempt_at = send_at
"""

_PENDING: Final = """
SELECT e.id, (SELECT count(*) FROM (
    SELECT FROM notice n WHERE n.environment_id = e.id AND n.status = 'pending' LIMIT %(most)s) p) AS pending
FROM unnest(%(environments)s::uuid[]) e (id)
"""
# A channel that somebody is changing, for which nobody may wait, is not counted.
_COUNT_LEFT_OUT: Final = """
UPDATE channel SET dropped_count = dropped_count + %(number)s
WHERE id = (SELECT id FROM channel WHERE id = %(channel_id)s FOR NO KEY UPDATE SKIP LOCKED)
"""


@dataclass(slots=True)
class _Line:
    """The announcements for one address of a channel: either results alone, or none. The address may be empty."""

    channel: Row
    address: str
    announcements: list[Announcement]

    @property
    def tells_results(self) -> bool:
        return self.announcements[0].event == RUN_RESULT

    @property
    def environment_id(self) -> UUID:
        environment_id: UUID = self.channel["environment_id"]
        return environment_id

    @property
    def key(self) -> tuple[UUID, str, bool]:
        return self.channel["id"], self.address, self.tells_results

    @property
    def receiver(self) -> tuple[str | UUID, bool]:
        return self.address or self.channel["id"], self.tells_results


@dataclass(slots=True)
class _Room:
    """What counts against the hourly limit of one receiver."""

    # When the last notices were sent or will be sent, in order: at most `MAX_AN_HOUR`, none older than an hour.
    times: list[datetime]
    # How many of the last `MAX_AN_HOUR` notices are pending.
    pending: int

    @property
    def free(self) -> int:
        return max(0, MAX_AN_HOUR - max(len(self.times), self.pending))

    def take(self, send_at: datetime) -> None:
        insort(self.times, send_at)
        del self.times[:-MAX_AN_HOUR]
        self.pending += 1

    def next_time(self, now: datetime) -> datetime:
        """Returns when a digest may be sent: when the oldest counted notice is an hour old, else in an hour."""
        due = max(now, self.times[0] + AN_HOUR) if self.times else now + AN_HOUR
        return max(due, now + AN_HOUR) if self.pending > len(self.times) else due


def queue_notices(
    channels: Sequence[Row], announcements: Iterable[Announcement], *, now: datetime | None = None
) -> list[Notice]:
    """Writes the notices of these channels, and returns them together with new digests. Call it in the transaction of
    the cause, with the result and `now` of `channels_wanting`. It runs a constant number of statements, and up to three
    for each digest.
    """
    wanted: list[tuple[Row, list[Announcement]]] = [(channel, []) for channel in channels]
    for each in announcements:
        for channel, found in wanted:
            if wants(channel, each):
                found.append(each)
    lines = _lines(wanted)
    shares = _shares(lines)
    rows, gathering = [], []
    for line in lines:
        if _is_limited(line) or len(line.announcements) > shares[line.environment_id]:
            gathering.append(line)
        else:
            rows += [_notice(line, each) for each in line.announcements]
    rows += _gathered(gathering, shares, now)
    Notice.objects.bulk_create(rows, batch_size=_BATCH)
    return rows


def queue_unlimited(channel: Row, announcement: Announcement) -> None:
    """Writes the notices of an announcement, one for each address that gets mail, without the hourly limit."""
    lines = _lines([(channel, [announcement])])
    Notice.objects.bulk_create([_notice(line, announcement) for line in lines])


def queue_for(channel: Channel, announcement: Announcement, address: str = "") -> Notice:
    """Writes one notice, even if the channel does not subscribe to its event, and without a limit on their number."""
    row = {"id": channel.id, "environment_id": channel.environment_id, "host": channel.host}
    notice = _notice(_Line(row, address, [announcement]), announcement)
    notice.save(force_insert=True)
    return notice


def _is_limited(line: _Line) -> bool:
    return bool(line.channel["kind"] != Channel.Kind.WEBHOOK)


def _lines(wanted: list[tuple[Row, list[Announcement]]]) -> list[_Line]:
    """Returns the lines for each address that gets mail and for each channel without addresses: one line of results and
    one of the other announcements, if there are any.
    """
    wanted = [(channel, found) for channel, found in wanted if found]
    pairs = {
        (channel["environment_id"], address)
        for channel, _ in wanted
        for address in channel["emails"]
    }
    known = standings(pairs)
    keep_consent([pair for pair, standing in known.items() if standing is Standing.MEMBER])
    lines = []
    for channel, found in wanted:
        parts = [
            [each for each in found if (each.event == RUN_RESULT) is tells_results]
            for tells_results in (False, True)
        ]
        for address in channel["emails"] or ("",):
            standing = known.get((channel["environment_id"], address))
            if standing is None or standing.gets_mail:
                lines += [_Line(channel, address, part) for part in parts if part]
    return lines


def _shares(lines: list[_Line]) -> dict[UUID, int]:
    """Returns how many more rows each line of an environment may write."""
    if not lines:
        return {}
    numbers = Counter(line.environment_id for line in lines)
    params = {"environments": list(numbers), "most": MAX_PENDING}
    found = fetch_all(_PENDING, params)
    return {row["id"]: (MAX_PENDING - row["pending"]) // numbers[row["id"]] for row in found}


def _gathered(lines: list[_Line], shares: dict[UUID, int], now: datetime | None) -> list[Notice]:
    """Returns the notices of lines of which a digest may have to gather some."""
    if not lines:
        return []
    by_key = {line.key: line for line in lines}
    channels, addresses, results = map(list, zip(*by_key, strict=True))
    params = {"channels": channels, "addresses": addresses, "results": results}
    fetch_all(_TAKE_TURNS, {"receivers": [str(line.receiver[0]) for line in lines]})
    notices: list[Notice] = []
    rooms: dict[tuple[str | UUID, bool], _Room] = {}
    for row in fetch_all(_ROOM, {**params, "most": MAX_AN_HOUR, "now": now}):
        line = by_key[row["channel_id"], row["address"], row["tells_results"]]
        room = rooms.setdefault(line.receiver, _Room(row["times"], row["pending"]))
        free = share = shares[line.environment_id]
        if _is_limited(line):
            free = 0 if row["digest_id"] else min(room.free, share)
        for each in line.announcements[:free]:
            notices.append(_notice(line, each))
            room.take(line.channel["now"])
        if held := line.announcements[free:]:
            notices += _digested(line, held, row, room, most=share - free)
    return notices


def _digested(
    line: _Line, held: list[Announcement], row: Row, room: _Room, *, most: int
) -> list[Notice]:
    """Returns the rows of up to `most` held-back notices. If no digest is open to gather them all, the first row is a
    new one.
    """
    lines = [each.line for each in held]
    digest_id, digests = row["digest_id"], []
    if digest_id is None or not _gather(digest_id, line, lines, row["body"]):
        now = line.channel["now"]
        digest = _digest(line, lines, room.next_time(now) if _is_limited(line) else now + _GATHERS)
        room.take(digest.send_at)
        digest_id, digests = digest.id, [digest]
    if (left_out := len(held) - most) > 0:
        execute(_COUNT_LEFT_OUT, {"channel_id": line.channel["id"], "number": left_out})
    return [*digests, *(_notice(line, each, digest_id=digest_id) for each in held[:most])]


def _gather(digest_id: UUID, line: _Line, lines: list[str], body: str) -> bool:
    """Adds notices to a digest. Returns False if the digest no longer gathers, because a sender has claimed it."""
    digest = Digest.of(body).with_more(lines, line.channel["now"])
    text = _digest_body(line, digest, digest_id)
    return execute(_GATHER, {"id": digest_id, "body": text}) == 1


def _digest(line: _Line, lines: list[str], due: datetime) -> Notice:
    digest_id = new_id()
    body = _digest_body(line, Digest().with_more(lines, line.channel["now"]), digest_id)
    return _row(line, DIGEST, body, id=digest_id, send_at=due, next_attempt_at=due)


def _digest_body(line: _Line, digest: Digest, digest_id: UUID) -> str:
    channel = line.channel
    announcement = Announcement(channel["environment_id"], DIGEST, "", channel["now"], digest.about)
    return body_of(announcement, digest_id)


def _notice(line: _Line, announcement: Announcement, *, digest_id: UUID | None = None) -> Notice:
    notice_id = new_id()
    values: dict[str, Any] = {
        "incident_id": announcement.incident_id,
        "run_id": announcement.run_id,
        "approval_id": announcement.approval_id,
    }
    if "now" in line.channel:
        values |= {"send_at": line.channel["now"], "next_attempt_at": line.channel["now"]}
    if digest_id is not None:
        values |= {
            "status": Notice.Status.DIGESTED,
            "digest_id": digest_id,
            "next_attempt_at": None,
        }
    return _row(line, announcement.event, body_of(announcement, notice_id), id=notice_id, **values)


def _row(line: _Line, event: str, body: str, **values: object) -> Notice:
    return Notice(
        environment_id=line.channel["environment_id"],
        channel_id=line.channel["id"],
        host=mail_host(line.address) if line.address else line.channel["host"],
        event=event,
        address=line.address,
        body=body,
        tells_results=line.tells_results,
        **values,
    )
