"""A caller may do a limited number of writes, and the right calls count as writes."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipedai.api import throttling
from pipedai.api.throttling import BURST, WRITES, Buckets, Rate
from pipedai.ids import new_id
from testing.probes.audited import audited
from testing.world.cast import Cast, bearer
from testing.world.routes import ROUTES
from testing.world.stage import Stage
from testing.world.undone import undone
from testing.world.users import use_instant_passwords
from workspaces.models import Workspace

ADA, BOB = new_id(), new_id()
# These calls are not counted: a worker's calls follow from its runs, a queue has a ceiling, and the others have no
# authenticated caller.
NOT_COUNTED = {
    "POST triggers/:trigger/run",
    "POST runs/:run/rerun",
    "POST runs/:run/watch",
    "POST workers/register",
    "POST enrollments/device",
    "POST enrollments/redeem",
    "POST enrollments/key",
    "POST addresses/confirm",
    "POST addresses/refuse",
    "POST hooks/:source",
} | {str(route) for route in ROUTES if route.of_workers}


@pytest.fixture
def buckets() -> Buckets:
    return Buckets(WRITES, BURST, most=1_000)


def taken(buckets: Buckets, times: int, *, now: float) -> int:
    """Tries this many writes at one time, and returns how many were allowed."""
    return sum(buckets.take(ADA, now=now) == 0 for _ in range(times))


class TestABucket:
    def test_holds_six_hundred_at_once(self, buckets: Buckets) -> None:
        assert taken(buckets, 1_000, now=0) == 600

    def test_gives_three_thousand_a_minute_after_that(self, buckets: Buckets) -> None:
        taken(buckets, 600, now=0)
        assert sum(taken(buckets, 100, now=second) for second in range(1, 61)) == 3_000

    def test_says_when_the_next_one_passes(self, buckets: Buckets) -> None:
        taken(buckets, 600, now=5)
        wait = buckets.take(ADA, now=5)
        assert wait == pytest.approx(0.02)
        assert buckets.take(ADA, now=5 + wait * 0.9) > 0
        assert buckets.take(ADA, now=5 + wait * 1.01) == 0

    def test_holds_no_more_after_a_long_pause(self, buckets: Buckets) -> None:
        taken(buckets, 600, now=0)
        assert taken(buckets, 1_000, now=1_000_000) == 600

    def test_is_of_one_caller_alone(self, buckets: Buckets) -> None:
        taken(buckets, 601, now=0)
        assert buckets.take(BOB, now=0) == 0

    def test_is_forgotten_once_it_is_full_again(self, buckets: Buckets) -> None:
        for second in range(3):
            buckets.take(new_id(), now=second)
        assert len(buckets) == 3
        buckets.take(ADA, now=13.5)
        assert len(buckets) == 2

    def test_is_kept_for_only_so_many(self) -> None:
        buckets = Buckets(WRITES, BURST, most=10)
        for _ in range(100):
            buckets.take(new_id(), now=0)
        assert len(buckets) == 10

    def test_gives_no_more_to_many_threads(self, buckets: Buckets) -> None:
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(lambda _: taken(buckets, 100, now=0), range(8))) == 600


@pytest.fixture
def one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives each caller one write, and the next one only after an hour."""
    hourly = Buckets(Rate("writes", limit=1, seconds=3_600), 1, most=10)
    monkeypatch.setattr(throttling, "_buckets", hourly)


@pytest.mark.parametrize("who", ["user", "pwk", "hos"])
def test_one_too_many_is_429_and_nothing_is_done(cast: Cast, one_write: None, who: str) -> None:
    hosted = f"/api/v1/workspaces/{cast.workspace.id}/workers/registration-token"
    client, url, body = {
        "user": (cast.client(cast.owner), "/api/v1/workspaces", {"name": "New"}),
        "pwk": (cast.key_client("admin"), hosted, {}),
        "hos": (bearer(cast.host().operator_token), hosted, {}),
    }[who]
    assert client.post(url, body).status_code == 201
    with audited() as rows:
        refused = client.post(url, body)
    assert (refused.status_code, refused.json()["code"]) == (429, "throttled")
    assert 3_590 < int(refused["Retry-After"]) <= 3_600
    assert refused["RateLimit-Policy"] == '"writes";q=3000;w=60'
    assert refused["RateLimit"] == f'"writes";r=0;t={refused["Retry-After"]}'
    assert rows == []
    assert Workspace.objects.filter(name="New").count() == (who == "user")


def test_which_calls_are_counted(stage: Stage, one_write: None, settings: Any) -> None:
    """Each caller has one write, so a call that counts twice is refused."""
    use_instant_passwords(settings)
    cast, counted = stage.cast, set()
    changing = [route for route in ROUTES if route.method != "GET"]
    for route in changing:
        throttling._buckets._buckets.clear()
        with undone():
            answer = route.send(route.caller(cast), route.url(stage), cast)
        assert answer.status_code != 429, route
        if len(throttling._buckets):
            counted.add(str(route))
    assert counted == {str(route) for route in changing} - NOT_COUNTED


def test_no_read_is_counted(cast: Cast, one_write: None) -> None:
    client = cast.client(cast.owner)
    assert {client.get("/api/v1/workspaces").status_code for _ in range(5)} == {200}


def test_without_throttles_there_is_no_end(cast: Cast, one_write: None, settings: Any) -> None:
    settings.THROTTLES_ENABLED = False
    client = cast.client(cast.owner)
    statuses = {client.post("/api/v1/workspaces", {"name": "x"}).status_code for _ in range(5)}
    assert statuses == {201}
