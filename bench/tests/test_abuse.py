"""Runs each flood on a small scale, and checks how its results are judged. It does not judge speed."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from bench.abuse.flooding import Flood, Stage, drive
from bench.abuse.floods import FLOODS, bodies, forms, logins, polls, queues, schedules, webhooks
from bench.abuse.tenants import new_customer
from bench.abuse.timed import Timed
from bench.abuse.verdict import compare
from bench.abuse.watch import Stretch
from bench.event_calls import make_source
from bench.load import Window, event
from bench.stack import Database
from bench.usage import Cpu
from pipedai.api.views import MAX_STREAMS
from pipedai.env import BASE_DIR
from testing.processes.web_process import serve, url_of

_LONGEST_SECONDS = 120
_LOCK_WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


class _OfTheSuite(Database):
    """A database that the test suite has made."""

    def __init__(self, name: str, directory: Path) -> None:
        super().__init__(directory, {}, BASE_DIR)
        self._url = url_of(name)

    def session(self, role: str = "") -> "psycopg.Connection[dict[str, Any]]":
        return psycopg.connect(self._url, autocommit=True, row_factory=dict_row)


@pytest.fixture
def stage(own_database, tmp_path) -> Iterator[Stage]:
    """Serves the API as the benchmark does, without a scheduler."""
    settings = {
        "DJANGO_SETTINGS_MODULE": "pipedai.settings",
        "TRUSTED_PROXIES": "127.0.0.1",
        "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    }
    with serve(own_database, log=tmp_path / "web.log", **settings) as served:
        port = int(served.url.rpartition(":")[2])
        yield Stage(_OfTheSuite(own_database, tmp_path), port, seconds=1)


async def _until_it_has_come(
    flood: Flood, stage: Stage, has_come: Callable[[Counter[str]], bool]
) -> Counter[str]:
    answers = Counter[str]()
    attack = asyncio.create_task(flood.attack(stage.port, answers))
    deadline = time.monotonic() + _LONGEST_SECONDS
    while not has_come(answers):
        assert time.monotonic() < deadline, f"{flood.name}: only {answers}"
        if attack.done():
            attack.result()
        await asyncio.sleep(0.02)
    attack.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await attack
    return answers


@pytest.fixture
def _fewer_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a flood use one worker or environment, where it has several alike, and few connections."""
    monkeypatch.setattr(bodies, "_CONNECTIONS", 2)
    monkeypatch.setattr(forms, "_FORM_BYTES", 1000)
    monkeypatch.setattr(logins, "_AT_ONCE", 4)
    monkeypatch.setattr(polls, "_WORKERS", 1)
    monkeypatch.setattr(polls, "_CONNECTIONS", 4)
    monkeypatch.setattr(queues, "_IN_POOL", 1)
    monkeypatch.setattr(queues, "_QUEUED", 100)
    monkeypatch.setattr(schedules, "_ENVIRONMENTS", 1)
    monkeypatch.setattr(webhooks, "_ENVIRONMENTS", 1)
    monkeypatch.setattr(webhooks, "_DELIVERIES", 1000)


@pytest.mark.long
@pytest.mark.usefixtures("_fewer_of_each")
@pytest.mark.timeout(2 * _LONGEST_SECONDS)
def test_each_flood_does_what_it_says(stage):
    due = "SELECT count(*) FROM delivery WHERE next_attempt_at <= statement_timestamp()"
    has_come: dict[str, Callable[[Counter[str]], bool]] = {
        "previews": lambda answers: answers["200"] > 0,
        "polls": lambda answers: answers["200"] > 1,
        "bodies": lambda answers: answers.total() > 0,
        "webhooks": lambda answers: stage.on.one(due)["count"] >= 1000,
        "schedules": lambda answers: answers["most due at once"] == 2000,
        "logins": lambda answers: answers["401"] > 0,
        "locks": lambda answers: stage.on.one(_LOCK_WAITS)["count"] > 1,
        "forms": lambda answers: len(answers) > 1,
        "queues": lambda answers: answers["200"] > 6,
        "explanations": lambda answers: answers["200"] > 4 and answers["429"] > 0,
        "streams": lambda answers: answers["200"] == MAX_STREAMS and answers["429"] > 0,
        "events": lambda answers: answers["202"] > 0,
        "unsigned": lambda answers: answers["401"] > 0,
    }
    assert list(has_come) == [flood.name for flood in FLOODS]
    floods = [each() for each in FLOODS]
    # The benchmark has made the neighbour's source by then.
    with new_customer(stage.port) as customer:
        make_source(customer, customer.environment("production")[0])
    for flood in floods:
        flood.prepare(stage)
    # The first floods come last, since they leave the service with the most work.
    for flood in reversed(floods):
        asyncio.run(_until_it_has_come(flood, stage, has_come[flood.name]))
        flood.clear(stage.on)
    assert stage.on.one(due)["count"] == 0
    left = "SELECT count(*) FROM trigger WHERE next_run_at <= statement_timestamp()"
    assert stage.on.one(left)["count"] == 0


class _Slow(Flood):
    """A flood to which nothing comes until it has gone on for a while, as on a machine with other work."""

    name = what = "slow"

    def prepare(self, stage: Stage) -> None:
        """Do nothing: this flood calls nobody."""

    async def attack(self, port: int, answers: Counter[str]) -> None:
        await asyncio.sleep(0.2)
        answers["200"] += 1
        await asyncio.sleep(_LONGEST_SECONDS)


def test_a_flood_goes_on_until_something_has_come_of_it():
    stop = event()
    stop.set()
    assert drive(_Slow(), 0, stop).answers == {"200": 1}


def _stretch(start: float, end: float, *, mib: int) -> Stretch:
    return Stretch(Window(start, end), mib * 2**20, mib * 2**20, Cpu(web=0.5, postgres=0.2))


_CALM = [_stretch(0, 10, mib=100), _stretch(30, 40, mib=300)]


def _life(*, flooded_seconds: float, failure: str | None = None) -> list[Timed]:
    """Returns a call for each second, which takes 0.1 s without a flood, and a webhook with each call."""
    return [
        Timed(kind, at, flooded_seconds if 10 <= at < 20 else 0.1, failure if at == 15 else None)
        for at in range(40)
        for kind in ("create", "webhook")
    ]


def test_a_flood_that_nobody_notices_is_ok():
    found = compare(_life(flooded_seconds=0.3), _CALM, _stretch(10, 20, mib=200))
    assert found["notMet"] == []
    assert found["p99Ratio"] == pytest.approx(3.0)
    assert found["without"]["calls"]["count"] == 20
    assert found["with"]["calls"] == {"count": 10, "p50Ms": 300, "p99Ms": 300}
    assert found["laterSeconds"]["webhook"] == pytest.approx(0.2)
    # The comparison is with the calm before the flood, not with that after it.
    assert found["moreMemoryMb"] == 100


@pytest.mark.parametrize(
    ("life", "mib", "words"),
    [
        pytest.param(_life(flooded_seconds=0.31), 100, ["p99"], id="slower"),
        pytest.param(_life(flooded_seconds=0.1), 201, ["memory"], id="memory"),
        pytest.param(_life(flooded_seconds=2.2), 100, ["p99", "webhook late"], id="late"),
        pytest.param(_life(flooded_seconds=0.1, failure="503"), 100, ["calls failed"], id="failed"),
        pytest.param([], 100, ["p99"], id="nothing-was-measured"),
    ],
)
def test_a_flood_is_noticed_by_what_misses_its_target(life, mib, words):
    assert compare(life, _CALM, _stretch(10, 20, mib=mib))["notMet"] == words


def test_a_service_that_does_not_recover_misses_a_target():
    things = _life(flooded_seconds=0.1)
    found = compare(things, _CALM[:1], _stretch(10, 20, mib=100), calm_again=False)
    assert found["notMet"] == ["not calm again"]


def test_a_quick_failure_counts_as_failed_not_as_fast():
    life = [Timed("login", 15.0, 0.001, "503")]
    found = compare(life, _CALM, _stretch(10, 20, mib=100))
    assert found["with"]["failures"] == {"login: 503": 1}
    assert "calls failed" in found["notMet"]
