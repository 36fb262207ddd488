"""hand_out_runs: due runs go to their worker, with their URL and secret headers."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from pipedai.api.renderers import JSONRenderer
from pipedai.events import SYSTEM, Actor
from pipedai.sql import database_now, execute
from testing.probes.statement_count import counted
from testing.processes.racing import ROUNDS, accepted, at_once
from testing.world.cast import Cast
from testing.world.connections import CONNECTION_HEADERS, CONNECTION_URL, add_connection
from testing.world.runs import NOON, Runs, allow
from triggers import services
from triggers.models import Trigger
from triggers.runs import handout, headers
from triggers.runs.handout import (
    MOST_BYTES,
    HandedOut,
    choose_runs,
    hand_out_runs,
    outlook,
)
from triggers.services import rotate_mcp_token
from workers.protocol.serializers import HandedOutRunSerializer
from workspaces.connections.services import CONNECTIONS

HEADERS = {"x-api-key": "planted-secret-1"}
HERE, THERE = "192.0.2.1", "192.0.2.2"


def _hand_out(
    runs: Runs,
    capacity: int = 9,
    *,
    worker_id: UUID | None = None,
    address: str | None = HERE,
    most_bytes: int = MOST_BYTES,
) -> list[HandedOut]:
    worker_id = worker_id or runs.cast.worker.worker_id
    return hand_out_runs(
        worker_id=worker_id,
        capacity=capacity,
        approved=True,
        actor=Actor("worker", worker_id, address),
        most_bytes=most_bytes,
        now=runs.now,
    )


def _ids(runs: Runs, capacity: int = 9) -> list[UUID]:
    return [run.row["id"] for run in _hand_out(runs, capacity)]


# --- Which runs are handed out


def test_those_that_are_due_longest_come_first(runs: Runs) -> None:
    third = runs.queue()
    runs.now = NOON - timedelta(minutes=2)
    first = runs.queue()
    runs.wait(minutes=1)
    second = runs.queue()
    runs.now = NOON
    assert _ids(runs) == [first, second, third]


def test_one_answer_holds_so_many_and_the_next_the_others(runs: Runs, monkeypatch) -> None:
    monkeypatch.setattr(handout, "MOST_AT_ONCE", 2)
    first, second, third = (runs.queue() for _ in range(3))
    allow(runs.cast.worker.worker_id, 9)
    assert _ids(runs) == [first, second]
    runs.claim(first)
    assert _ids(runs) == [second, third]


def test_one_answer_ends_before_its_texts_are_too_long(cast: Cast) -> None:
    runs = Runs.of(cast, prompt="x" * 256 * 1024)
    allow(cast.worker.worker_id, 50)
    queued = [runs.queue() for _ in range(20)]
    first = _ids(runs, capacity=50)
    assert first == queued[:15]
    for run_id in first:
        runs.claim(run_id)
    assert _ids(runs, capacity=50) == queued[15:]


@pytest.mark.parametrize(
    ("prompt", "payload", "count"),
    [
        # The limit counts bytes, not characters.
        ("é" * 128 * 1024, None, 15),
        ("x" * 60_000, "y" * 60_000, 34),
        # The limit counts the JSON, in which these characters are longer.
        ("\x01" * 256 * 1024, None, 2),
        ('"' * 256 * 1024, None, 7),
        ("\u2028" * 87_000, None, 8),
    ],
)
def test_and_is_full_with_what_fits(cast: Cast, prompt: str, payload: Any, count: int) -> None:
    runs = Runs.of(cast, prompt=prompt)
    for _ in range(50):
        runs.queue(payload=payload)
    handed_out = _hand_out(runs, capacity=50)
    answer = JSONRenderer().render([HandedOutRunSerializer(run).data for run in handed_out])
    longest = len(answer) // len(handed_out)
    assert MOST_BYTES - 2 * longest < len(answer) <= MOST_BYTES
    assert len(handed_out) == count


def test_a_run_that_is_longer_than_an_answer_may_be_goes_out_alone(runs: Runs) -> None:
    queued = [runs.queue() for _ in range(3)]
    (handed_out,) = _hand_out(runs, most_bytes=1)
    assert handed_out.row["id"] == queued[0]
    # PostgreSQL counts the texts' bytes; what they become as JSON is counted afterwards.
    rows = [run.row for run in _hand_out(runs)]
    assert handout._fitting(rows, 1) == rows[:1]


def test_a_retry_takes_its_place_by_when_it_is_due(runs: Runs) -> None:
    run_id = runs.running()
    runs.complete(run_id, "failed", faultClass="infra")
    retry = runs.retry_of(run_id)
    assert retry is not None
    before = runs.queue()
    runs.wait(seconds=60)
    after = runs.queue()
    assert _ids(runs) == [before, retry["id"], after]


def test_a_run_is_handed_out_from_the_instant_it_is_due(runs: Runs) -> None:
    retry = runs.retry_of(runs.lost())
    assert retry is not None
    runs.now = retry["available_at"] - timedelta(microseconds=1)
    assert _ids(runs) == []
    runs.wait(microseconds=1)
    assert _ids(runs) == [retry["id"]]


def test_no_more_are_handed_out_than_the_worker_has_room_for(runs: Runs) -> None:
    allow(runs.cast.worker.worker_id, 3)
    runs.claimed()
    waiting = [runs.queue() for _ in range(3)]
    assert _ids(runs, capacity=3) == waiting[:2]
    assert _ids(runs, capacity=1) == []
    assert _ids(runs, capacity=0) == []


def test_what_is_held_or_ended_or_anothers_is_not_handed_out(runs: Runs) -> None:
    runs.running()
    runs.cancel(runs.queue())
    other = runs.cast.register("host-2").worker_id
    runs.queue(trigger_id=runs.cast.add_trigger(worker_id=other))
    assert _ids(runs) == []


def test_a_disabled_trigger_hands_out_what_is_queued(runs: Runs) -> None:
    run_id = runs.queue()
    Trigger.objects.filter(id=runs.trigger_id).update(enabled=False)
    assert _ids(runs) == [run_id]


# --- What a worker gets


def test_a_run_goes_out_with_all_that_its_worker_needs(cast: Cast) -> None:
    runs = Runs.of(cast, mcp_headers=HEADERS, model="claude-opus", timeout_seconds=60)
    run_id = runs.queue(payload={"b": 1, "a": [1.0]})
    (run,) = _hand_out(runs)
    assert run.mcp_headers == HEADERS
    shown = ("id", "trigger_id", "trigger_name", "prompt", "model", "mcp_url", "timeout_seconds")
    assert [run.row[name] for name in shown] == [
        run_id,
        runs.trigger_id,
        "Nightly report",
        "Report.",
        "claude-opus",
        "https://mcp.example/v1",
        60,
    ]
    assert (run.row["payload"], run.row["attempt"]) == ({"b": 1, "a": [1.0]}, 1)
    assert run.row["queued_at"] == NOON


def test_a_run_keeps_the_prompt_that_it_was_queued_with(runs: Runs) -> None:
    runs.queue()
    _update(runs, prompt="Another prompt.", model="another-model")
    (run,) = _hand_out(runs)
    assert (run.row["prompt"], run.row["model"]) == ("Report.", None)


def test_url_and_headers_are_the_triggers_present_ones_together(cast: Cast) -> None:
    runs = Runs.of(cast, mcp_headers=HEADERS)
    run_id = runs.queue()
    _update(
        runs,
        mcp_url="https://other.example/v2",
        mcp_headers={"authorization": "Bearer a-second-secret"},
    )
    (run,) = _hand_out(runs)
    assert run.row["mcp_url"] == "https://other.example/v2"
    assert run.mcp_headers == {"authorization": "Bearer a-second-secret"}
    assert runs.stored(run_id)["mcp_url"] == "https://other.example/v2"


def test_a_new_server_does_not_get_the_old_ones_secret(cast: Cast) -> None:
    runs = Runs.of(cast, mcp_headers=HEADERS)
    runs.queue()
    _update(runs, mcp_url="https://other.example/v2")
    (run,) = _hand_out(runs)
    assert run.mcp_headers == {}


def test_headers_rotated_before_the_claim_go_out_instead(cast: Cast) -> None:
    runs = Runs.of(cast, mcp_headers=HEADERS)
    runs.queue()
    assert _hand_out(runs)[0].mcp_headers == HEADERS
    rotate_mcp_token(
        trigger_id=runs.trigger_id, mcp_headers={"x-api-key": "a-second-secret"}, actor=SYSTEM
    )
    assert _hand_out(runs)[0].mcp_headers == {"x-api-key": "a-second-secret"}


def test_a_connection_lends_its_headers_to_all_its_triggers_and_rotates_them_at_once(
    cast: Cast,
) -> None:
    connection_id = add_connection(cast)
    given = {"connection_id": connection_id, "mcp_url": CONNECTION_URL}
    own = {"X-Team": "planted-blue-team", "x-api-key": "planted-old-key"}
    runs = Runs.of(cast, **given, mcp_headers=own)
    runs.queue()
    runs.queue(trigger_id=cast.add_trigger(**given))
    with counted() as statements:
        assert [run.mcp_headers for run in _hand_out(runs)] == [
            {**own, **CONNECTION_HEADERS},
            CONNECTION_HEADERS,
        ]
    assert len(statements) == 2, str(statements)
    rotated = {"X-Api-Key": "planted-newer-key"}
    CONNECTIONS.update(connection_id, values={"headers": rotated}, actor=SYSTEM)
    first, second = _hand_out(runs)
    assert first.row["mcp_url"] == CONNECTION_URL
    assert first.mcp_headers == {"X-Team": "planted-blue-team", **rotated}
    assert second.mcp_headers == rotated


def test_headers_of_a_connection_go_to_an_approved_worker_alone(cast: Cast) -> None:
    runs = Runs.of(cast, connection_id=add_connection(cast), mcp_url=CONNECTION_URL)
    run_id = runs.queue()
    worker_id = cast.worker.worker_id
    assert not choose_runs(worker_id=worker_id, capacity=9, approved=False, now=runs.now)
    with capture_logs() as logs:
        assert "planted" not in repr(_hand_out(runs))
        _hand_out(runs, address=THERE)
    told = Told(runs, run_id, logs)
    assert len(told.logged()) == 2
    assert len(told.audited()) == 1


def test_headers_of_a_connection_that_do_not_open_hold_back_their_runs_alone(cast: Cast) -> None:
    runs = Runs.of(cast, connection_id=add_connection(cast), mcp_url=CONNECTION_URL)
    runs.queue()
    sound = runs.queue(trigger_id=cast.trigger_id)
    execute("UPDATE connection SET headers = set_byte(headers, 40, get_byte(headers, 40) # 1)", {})
    with capture_logs() as logs:
        assert _ids(runs) == [sound]
    assert [line["table"] for line in logs if line["log_level"] == "error"] == ["connection"]


def test_headers_that_do_not_open_hold_back_their_run_alone(cast: Cast) -> None:
    runs = Runs.of(cast, mcp_headers=HEADERS)
    broken, sound = runs.queue(), runs.queue(trigger_id=cast.trigger_id)
    execute(
        "UPDATE trigger SET mcp_headers = set_byte(mcp_headers, 40, get_byte(mcp_headers, 40) # 1)"
        " WHERE id = %(id)s",
        {"id": runs.trigger_id},
    )
    with capture_logs() as logs:
        assert _ids(runs) == [sound]
    assert [line["event"] for line in logs if line["log_level"] == "error"] == [
        "secret.cannot_open"
    ]
    assert runs.stored(broken)["mcp_url"] is None


def test_what_was_handed_out_does_not_show_its_secrets(cast: Cast) -> None:
    runs = Runs.of(cast, mcp_headers=HEADERS)
    runs.queue()
    assert "planted" not in repr(_hand_out(runs))


# --- What is stored


def test_the_url_is_kept_with_the_run(runs: Runs) -> None:
    run_id = runs.queue()
    assert runs.stored(run_id)["mcp_url"] is None
    _hand_out(runs)
    assert runs.stored(run_id)["mcp_url"] == "https://mcp.example/v1"


def test_the_url_of_a_run_with_a_payload_is_kept_beside_it(runs: Runs) -> None:
    run_id = runs.queue(payload=[1])
    _hand_out(runs)
    stored = runs.stored(run_id)
    assert (stored["mcp_url"], stored["payload"]) == ("https://mcp.example/v1", [1])


def test_asking_again_hands_out_the_same_and_writes_nothing(cast: Cast) -> None:
    runs = Runs.of(cast, mcp_headers=HEADERS)
    runs.queue()
    runs.queue(payload={"a": 1})
    with counted() as first:
        once = _hand_out(runs)
    with counted() as second:
        again = _hand_out(runs)
    assert [run.row["id"] for run in again] == [run.row["id"] for run in once]
    assert (len(first), len(second)) == (2, 1), str(first)


def test_a_changed_url_is_kept_anew(runs: Runs) -> None:
    run_id = runs.queue()
    _hand_out(runs)
    _update(runs, mcp_url="https://mcp.example/v2")
    _hand_out(runs)
    assert runs.stored(run_id)["mcp_url"] == "https://mcp.example/v2"


def test_any_number_of_runs_takes_the_same_statements(cast: Cast) -> None:
    runs = Runs.of(cast, mcp_headers=HEADERS)
    for _ in range(50):
        runs.queue()
    with counted() as statements:
        assert len(_hand_out(runs, capacity=100)) == 50
    assert len(statements) == 2, str(statements)


# --- Who gets the headers


class Told:
    """The log lines and audit rows about hand-outs of a run.

    Each is a tuple: worker, address, and then the previous worker and the previous address.
    """

    def __init__(self, runs: Runs, run_id: UUID, logs: list[Any]) -> None:
        self._runs, self._run_id, self._logs = runs, run_id, logs

    def logged(self) -> list[tuple[Any, ...]]:
        """Returns the log lines."""
        names = ("worker_id", "address", "previous_worker_id", "previous_address")
        lines = [line for line in self._logs if line["event"] == "run.handed_out"]
        assert {line["run_id"] for line in lines} <= {str(self._run_id)}
        return [tuple(line[name] for name in names if name in line) for line in lines]

    def audited(self) -> list[tuple[Any, ...]]:
        """Returns the audit rows."""
        rows = [row for row in self._runs.audited(self._run_id) if row.action == "run.handed-out"]
        assert all(row.metadata["triggerId"] == str(self._runs.trigger_id) for row in rows)
        assert all(row.metadata["workerId"] == str(row.actor_id) for row in rows)
        return [
            (
                str(row.actor_id),
                row.ip,
                row.metadata["previous"]["workerId"],
                row.metadata["previous"]["address"],
            )
            for row in rows
        ]


def _poll(where: str) -> Callable[[Runs, UUID], object]:
    return lambda runs, _: _hand_out(runs, address=where)


def _poll_as_the_other(runs: Runs, other: UUID) -> None:
    _update(runs, worker_id=other)
    _hand_out(runs, worker_id=other)


def _poll_as_the_first_again(runs: Runs, _: UUID) -> None:
    _update(runs, worker_id=runs.cast.worker.worker_id)
    _hand_out(runs)


# (calls, receivers in the log, receivers in the audit log); M is the run's first worker, O another one.
HAND_OUTS: dict[str, tuple[list[Callable[[Runs, UUID], object]], list[str], list[str]]] = {
    "once": ([_poll(HERE)], ["M here"], []),
    "the same worker, the same address": ([_poll(HERE)] * 3, ["M here"], []),
    "the same worker, another address": (
        [_poll(HERE), _poll(THERE)],
        ["M here", "M there < M here"],
        ["M there < M here"],
    ),
    "two addresses in turn are audited once": (
        [_poll(HERE), _poll(THERE)] * 3,
        ["M here", *["M there < M here", "M here < M there"] * 2, "M there < M here"],
        ["M there < M here"],
    ),
    "another worker": (
        [_poll(HERE), _poll_as_the_other],
        ["M here", "O here < M here"],
        ["O here < M here"],
    ),
    "another worker, and back": (
        [_poll(HERE), _poll_as_the_other, _poll_as_the_first_again],
        ["M here", "O here < M here", "M here < O here"],
        ["O here < M here"],
    ),
    "IPv6 addresses of one network are others": (
        [_poll("2001:db8::1"), _poll("2001:db8::2"), _poll("2001:db8::2")],
        ["M 2001:db8::1", "M 2001:db8::2 < M 2001:db8::1"],
        ["M 2001:db8::2 < M 2001:db8::1"],
    ),
    "another URL and other headers are no other receiver": (
        [
            _poll(HERE),
            lambda runs, _: _update(
                runs, mcp_url="https://mcp.example/v2", mcp_headers={"x-api-key": "planted-2"}
            ),
            _poll(HERE),
        ],
        ["M here"],
        [],
    ),
    "without headers nothing is told": (
        [lambda runs, _: _update(runs, mcp_headers=None), _poll(HERE), _poll(THERE)],
        [],
        [],
    ),
    "headers that come later are told of when they go out": (
        [
            lambda runs, _: _update(runs, mcp_headers=None),
            _poll(HERE),
            lambda runs, _: _update(runs, mcp_headers=HEADERS),
            _poll(THERE),
            _poll(HERE),
        ],
        ["M there", "M here < M there"],
        ["M here < M there"],
    ),
}


def _named(runs: Runs, other: UUID, told: list[str]) -> list[tuple[str, ...]]:
    words = {
        "M": str(runs.cast.worker.worker_id),
        "O": str(other),
        "here": HERE,
        "there": THERE,
    }
    return [tuple(words.get(word, word) for word in one.split() if word != "<") for one in told]


@pytest.mark.parametrize("name", HAND_OUTS)
def test_a_hand_out_to_another_receiver_than_the_last_is_told(cast: Cast, name: str) -> None:
    doing, logged, audited = HAND_OUTS[name]
    other = cast.register("host-2").worker_id
    runs = Runs.of(cast, mcp_headers=HEADERS)
    run_id = runs.queue()
    with capture_logs() as logs:
        for each in doing:
            each(runs, other)
    told = Told(runs, run_id, logs)
    assert told.logged() == _named(runs, other, logged)
    assert told.audited() == _named(runs, other, audited)
    assert "planted" not in str(logs)


def test_each_of_many_addresses_is_told_and_only_the_latest_are_remembered(cast: Cast) -> None:
    runs = Runs.of(cast, mcp_headers=HEADERS)
    run_id = runs.queue()
    with capture_logs() as logs:
        for n in range(30):
            _hand_out(runs, address=f"192.0.2.{n}")
    told = Told(runs, run_id, logs)
    assert (len(told.logged()), len(told.audited())) == (30, 29)
    remembered = runs.stored(run_id)["handed_to"]
    mine = cast.worker.worker_id
    assert remembered == [f"{mine} 192.0.2.{n}" for n in range(29, 9, -1)]


def test_a_caller_without_an_address_is_one_receiver(cast: Cast) -> None:
    runs = Runs.of(cast, mcp_headers=HEADERS)
    run_id = runs.queue()
    mine = str(cast.worker.worker_id)
    with capture_logs() as logs:
        for address in (None, None, HERE):
            _hand_out(runs, address=address)
    assert Told(runs, run_id, logs).logged() == [(mine, None), (mine, HERE, mine, None)]


def test_a_hand_out_that_can_not_be_audited_is_none(cast: Cast, monkeypatch) -> None:
    runs = Runs.of(cast, mcp_headers=HEADERS)
    run_id = runs.queue()
    _hand_out(runs)
    before = runs.stored(run_id)["handed_to"]
    with monkeypatch.context() as broken:
        broken.setattr(headers, "emit", _fail)
        with pytest.raises(RuntimeError):
            _hand_out(runs, address=THERE)
    assert runs.stored(run_id)["handed_to"] == before
    _hand_out(runs, address=THERE)
    assert runs.actions(run_id) == ["run.created", "run.handed-out"]


def _fail(*_: Any) -> None:
    raise RuntimeError("no audit row")


def test_what_it_costs_to_tell_of_another_receiver(cast: Cast) -> None:
    """Another receiver costs one statement to store it and one for the audit rows, for any number of runs."""
    runs = Runs.of(cast, mcp_headers=HEADERS)
    for _ in range(20):
        runs.queue()
    _hand_out(runs, capacity=100)
    with counted() as another:
        assert len(_hand_out(runs, capacity=100, address=THERE)) == 20
    with counted() as again:
        _hand_out(runs, capacity=100, address=THERE)
    assert (len(another), len(again)) == (3, 1), str(another)


class TestAtOnce:
    """Several polls come at the same time, each on its own connection."""

    @pytest.fixture
    def runs(self, committed_cast: Cast) -> Runs:
        runs = Runs.of(committed_cast, mcp_headers=HEADERS)
        runs.now = database_now()
        return runs

    @pytest.mark.parametrize("round_", ROUNDS)
    def test_polls_from_one_address_are_told_once(self, runs: Runs, round_: int) -> None:
        run_id = runs.queue()
        with capture_logs() as logs:
            accepted(at_once(*[partial(_hand_out, runs)] * 4))
        told = Told(runs, run_id, logs)
        assert told.logged() == [(str(runs.cast.worker.worker_id), HERE)]
        assert told.audited() == []

    @pytest.mark.parametrize("round_", ROUNDS)
    def test_polls_from_several_addresses_are_each_told_and_all_but_the_first_audited(
        self, runs: Runs, round_: int
    ) -> None:
        run_ids = [runs.queue() for _ in range(3)]
        places = [f"192.0.2.{n}" for n in range(4)]
        mine = str(runs.cast.worker.worker_id)
        with capture_logs() as logs:
            accepted(at_once(*[partial(_hand_out, runs, address=place) for place in places]))
        for run_id in run_ids:
            told = Told(runs, run_id, [line for line in logs if line["run_id"] == str(run_id)])
            assert sorted(line[1] for line in told.logged()) == places
            rows = told.audited()
            (first,) = {*places} - {row[1] for row in rows}
            assert len(rows) == 3
            remembered = [one.split()[1] for one in runs.stored(run_id)["handed_to"]]
            assert sorted(remembered) == places
            assert remembered[-1] == first
            # Each audit row names the receiver before its own.
            pairs = set(pairwise(remembered))
            assert {(row[1], row[3]) for row in rows} == pairs
            assert {row[2] for row in rows} == {mine}


def test_a_first_hand_out_is_not_audited(cast: Cast) -> None:
    runs = Runs.of(cast, mcp_headers=HEADERS)
    run_id = runs.queue()
    _hand_out(runs)
    assert runs.actions(run_id) == ["run.created"]


# --- How long until the next run comes due


def test_how_long_until_the_next_run_is_due(runs: Runs) -> None:
    runs.lost()
    runs.wait(seconds=12)
    worker_id = runs.cast.worker.worker_id
    assert outlook(worker_id=worker_id, capacity=1, now=runs.now)[0] == timedelta(seconds=18)


@pytest.mark.parametrize("make", ["nothing", "queue", "running"])
def test_without_a_later_run_there_is_nothing_to_wait_for(runs: Runs, make: str) -> None:
    if make != "nothing":
        getattr(runs, make)()
    assert outlook(worker_id=runs.cast.worker.worker_id, capacity=1, now=runs.now)[0] is None


def _update(runs: Runs, **values: Any) -> None:
    services.TRIGGERS.update(runs.trigger_id, values=values, actor=SYSTEM)
