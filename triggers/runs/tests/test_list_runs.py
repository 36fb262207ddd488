"""GET /triggers/:id/runs and GET /environments/:envId/runs"""

import itertools
import random
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlencode

import pytest

from pipedai.api.tests.test_cursors import walk
from testing.probes.shapes import invalid, page
from testing.probes.statement_count import counted
from testing.world.cases import cases
from testing.world.pools import add_pool
from testing.world.runs import NOON, Runs, allow
from triggers.models import Run, Trigger
from triggers.runs import queries
from triggers.states import Source, Status
from workers.models import Worker

RUN_FIELDS = [
    "id", "triggerId", "triggerRevisionId", "triggerName", "environmentId", "workerId", "poolId", "status", "source",
    "attempt", "retryOfRunId", "rerunOfRunId", "eventId", "scheduledFor", "availableAt", "startDeadlineAt", "queuedAt",
    "claimedAt", "startedAt", "endedAt", "durationMs", "exitCode", "shortMessage", "errorMessage", "faultClass",
    "willRetry", "nothingNew",
    "model", "inputTokens", "outputTokens", "cacheReadTokens", "cacheCreationTokens", "costUsd",
    "numTurns", "sessionId", "cancelRequested",
]  # fmt: skip


@pytest.fixture(params=["trigger", "environment"])
def url(request, cast, runs):
    """The URL of each of the two lists, which show the same runs here."""
    return both_urls(cast, runs)[request.param]


def both_urls(cast, runs):
    return {
        "trigger": f"/api/v1/triggers/{runs.trigger_id}/runs",
        "environment": f"/api/v1/environments/{cast.environment.id}/runs",
    }


def half(rows):
    """Returns the limit by which two pages show all of several rows."""
    return max(1, len(rows) // 2 + len(rows) % 2)


def ids(response):
    assert response.status_code == 200, response.json()
    return [item["id"] for item in response.json()["items"]]


@pytest.fixture
def get(cast, runs):
    """Asks both lists, whose answers have to be alike, and returns the answer of the environment's."""
    client = cast.client(cast.viewer)

    def ask_both(query=""):
        *_, answer = answers = [
            client.get(f"{url}?{query}") for url in both_urls(cast, runs).values()
        ]
        first, second = ((each.status_code, shown(each.json())) for each in answers)
        assert first == second
        return answer

    return ask_both


def shown(body):
    """Returns what an answer shows, without its cursor, which is good for one list alone."""
    return {name: value for name, value in body.items() if name != "nextCursor"}


@pytest.fixture
def get_one(cast, url):
    """Asks one of the two lists."""
    client = cast.client(cast.viewer)
    return lambda query="": client.get(f"{url}?{query}")


def test_each_is_shown_without_what_is_long(runs, get):
    run_id = runs.ended("failed", payload={"a": 1}, errorMessage="It broke.", costUsd="0.0120")
    (item,) = get().json()["items"]
    assert list(item) == RUN_FIELDS
    assert item["id"] == str(run_id)
    assert (item["errorMessage"], item["costUsd"]) == ("It broke.", "0.012")


def test_the_newest_come_first(runs, get):
    made = []
    for _ in range(3):
        made.append(str(runs.queue()))
        runs.wait(seconds=1)
    assert ids(get()) == made[::-1]


def test_runs_of_other_environments_are_not_there(cast, runs):
    runs.queue()
    url = f"/api/v1/environments/{cast.strange_environment.id}/runs"
    assert cast.client(cast.stranger).get(url).json() == page()


def test_a_triggers_list_holds_its_runs_alone_and_the_environments_all(cast, runs):
    other = runs.queue(trigger_id=cast.trigger_id)
    own = runs.queue()
    client = cast.client(cast.viewer)
    assert ids(client.get(f"/api/v1/triggers/{runs.trigger_id}/runs")) == [str(own)]
    both = ids(client.get(f"/api/v1/environments/{cast.environment.id}/runs"))
    assert set(both) == {str(own), str(other)}


def test_the_runs_of_a_deleted_trigger_stay_in_the_ledger(cast, runs):
    run_id = runs.ended()
    Trigger.objects.update(deleted_at="2026-01-01T00:00:00Z")
    client = cast.client(cast.viewer)
    assert client.get(f"/api/v1/triggers/{runs.trigger_id}/runs").status_code == 404
    environment = f"/api/v1/environments/{cast.environment.id}/runs"
    assert ids(client.get(environment)) == [str(run_id)]
    assert ids(client.get(environment, {"triggerId": runs.trigger_id})) == [str(run_id)]


class TestFilteredByStatus:
    @pytest.fixture
    def by_status(self, runs):
        made = {
            "succeeded": runs.ended(),
            "failed": runs.ended("failed"),
            "running": runs.running(),
        }
        return {status: str(run_id) for status, run_id in made.items()}

    QUERIES: tuple[tuple[str, list[str]], ...] = (
        ("status=succeeded", ["succeeded"]),
        ("status=succeeded,failed", ["succeeded", "failed"]),
        ("status=succeeded&status=failed", ["succeeded", "failed"]),
        ("status=succeeded&status=failed,running", ["succeeded", "failed", "running"]),
        ("status=succeeded,,%20failed,", ["succeeded", "failed"]),
        ("status=failed,failed", ["failed"]),
        ("status=queued", []),
        ("status=running", ["running"]),
        ("status=queued,running", ["running"]),
        ("status=", ["succeeded", "failed", "running"]),
        ("", ["succeeded", "failed", "running"]),
    )

    def test_it_may_repeat_or_be_comma_separated(self, by_status, get, subtests):
        for query, statuses in self.QUERIES:
            with subtests.test(query):
                assert set(ids(get(query))) == {by_status[status] for status in statuses}

    def test_anything_else_is_refused(self, get, subtests):
        for value in ("done", "Failed", "succeeded;failed", "%00", "x" * 500):
            with subtests.test(value):
                response = get(f"status=failed,{value}")
                assert response.status_code == 400
                (message,) = response.json()["details"]["fieldErrors"]["status"]
                assert message.endswith(
                    "is none of: queued, claimed, running, waiting, succeeded, failed, timed_out, canceled."
                )
                assert len(message) < 200


class TestSeveralStatuses:
    """A filter by several statuses merges the pages of each status."""

    @pytest.fixture
    def many(self, runs):
        """Makes runs in five states, at four times."""
        statuses = ("queued", "canceled", "succeeded", "succeeded", "failed", "timed_out")
        made = [(minute, status) for minute in range(4) for status in statuses]
        random.Random(11).shuffle(made)
        for minute, status in made:
            runs.now = NOON + timedelta(minutes=minute)
            if status == "queued":
                runs.queue()
            elif status == "canceled":
                runs.cancel(runs.queue())
            else:
                runs.ended(status)

    def test_follow_each_other_in_one_order(self, cast, runs, many, subtests):
        """All is one test, because the runs take longer to make than the pages to read."""
        asked = itertools.product(
            both_urls(cast, runs).values(),
            ("succeeded", "failed,timed_out", "queued,failed", ",".join(Status.values)),
            # The limit of the shorter time leaves no second page.
            ((0, 4, 5), (1, 3, 200)),
        )
        client = cast.client(cast.viewer)
        for url, statuses, (*minutes, limit) in asked:
            with subtests.test(url=url, statuses=statuses, minutes=minutes):
                self.follow_each_other(client, url, statuses, minutes, limit)

    def follow_each_other(self, client, url, statuses, minutes, limit):
        begin, end = (NOON + timedelta(minutes=each) for each in minutes)
        rows = Run.objects.filter(
            status__in=statuses.split(","), queued_at__gte=begin, queued_at__lt=end
        )
        expected = [str(row.id) for row in rows.order_by("-queued_at", "-id")]
        assert len(expected) > 3
        query = urlencode({"status": statuses, "from": begin, "to": end})
        assert walk(client, f"{url}?{query}", limit) == [
            expected[first : first + limit] for first in range(0, len(expected), limit)
        ]

    def test_are_found_by_one_statement_and_read_by_another(self, runs, get_one):
        runs.ended(), runs.queue()
        with counted() as one:
            get_one("status=queued")
        with counted() as several:
            get_one("status=succeeded,queued,running&limit=2")
        assert len(several) == len(one) + 1
        # There is one LIMIT for each unfinished status, one for each source of the ended runs, and one for all.
        assert several.sql[-2].count("LIMIT 3") == 2 + len(Source) + 1


class TestFilteredByTime:
    TIMES = ("2026-05-04T10:00:00Z", "2026-05-04T11:00:00Z", "2026-05-04T12:00:00Z")

    @pytest.fixture
    def by_time(self, runs):
        made = {}
        for time in self.TIMES:
            runs.now = datetime.fromisoformat(time)
            made[time] = str(runs.queue())
        return made

    QUERIES = (
        ("from=2026-05-04T11:00:00Z", TIMES[1:]),
        ("to=2026-05-04T11:00:00Z", TIMES[:1]),
        ("from=2026-05-04T10:00:00Z&to=2026-05-04T12:00:00Z", TIMES[:2]),
        ("from=2026-05-04T11:00:00.000001Z", TIMES[2:]),
        ("from=2026-05-04T13:00:00%2B02:00", TIMES[1:]),
        ("from=2026-05-04T11:00:00", TIMES[1:]),
        ("from=2026-05-04T11:00", TIMES[1:]),
        ("from=2026-05-04", TIMES),
        ("to=2026-05-04", ()),
        ("from=2026-05-05&to=2026-05-04", ()),
        ("from=&to=", TIMES),
        ("from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z", TIMES),
    )

    def test_from_is_the_first_and_to_is_past_the_last(self, by_time, get, subtests):
        for query, expected in self.QUERIES:
            with subtests.test(query):
                assert set(ids(get(query))) == {by_time[time] for time in expected}

    def test_of_several_ends_the_last_counts_with_a_cursor_too(self, by_time, get_one):
        early, late = f"to={self.TIMES[1]}", "to=2026-05-05"
        cursor = get_one(f"limit=1&{early}&{late}").json()["nextCursor"]
        assert ids(get_one(f"{late}&{early}&cursor={cursor}")) == [by_time[self.TIMES[0]]]

    NO_TIMES = (
        "x",
        "yesterday",
        "2026-13-01",
        "2026-02-30T00:00:00Z",
        "1764000000",
        "%00",
        "12:00",
        # These times are before and after all that the database can store.
        "0001-01-01T00:00:00%2B14:00",
        "9999-12-31T23:59:59-14:00",
    )

    def test_anything_else_is_refused(self, get, subtests):
        for name, value in itertools.product(("from", "to"), self.NO_TIMES):
            with subtests.test(name=name, value=value):
                response = get(f"{name}={value}")
                assert response.status_code == 400
                assert response.json() == invalid(
                    {name: ["Must be an ISO 8601 time, such as 2026-11-24T15:30:00Z."]}
                )

    @cases("name", ["from", "to"])
    def test_a_plus_that_became_a_blank_is_told(self, get, name, subtests):
        sentence = (
            "Must be an ISO 8601 time, such as 2026-11-24T15:30:00Z."
            " In a URL a + means a blank: write the + of the offset as %2B."
        )
        for value in (
            "2026-11-24T15:30:00+02:00",
            "2026-11-24T15:30:00.250+0200",
            "2026-11-24T15:30+02",
        ):
            with subtests.test(value):
                response = get(f"{name}={value}")
                assert response.status_code == 400
                assert response.json() == invalid({name: [sentence]})
                assert get(f"{name}={value.replace('+', '%2B')}").status_code == 200


class TestFilteredByWhatBecameOfThem:
    """The filters by fault class, source, end and retries, alone and together."""

    @pytest.fixture
    def many(self, cast, runs):
        """Makes runs of every source, with every end, some of them retried, each at a time of its own."""
        allow(cast.worker.worker_id, 50)
        for n, source in enumerate(("manual", "api")):
            for status, report in (
                ("succeeded", {}),
                ("failed", {"faultClass": "client"}),
                ("failed", {"faultClass": "infra"}),
                ("timed_out", {"faultClass": "infra"}),
                ("timed_out", {}),
            ):
                run_id = runs.running(source=Source(source))
                runs.wait(seconds=7 - n)
                runs.complete(run_id, status, **report)
            runs.cancel(runs.queue(source=Source(source)))
            runs.wait(seconds=1)
            runs.queue(source=Source(source))
        retries = Run.objects.filter(source="retry").order_by("id").values_list("id", flat=True)
        runs.wait(days=1)
        for run_id, report in zip(retries, ({}, {"faultClass": "infra"}), strict=False):
            runs.claim(run_id)
            runs.complete(run_id, "failed" if report else "succeeded", **report)
        for source in ("api", "manual"):
            # A run is not retried if somebody asked to cancel it.
            runs.cancel(canceled := runs.running(source=Source(source)))
            runs.complete(canceled, "failed", faultClass="infra")
        lost = runs.lost()
        runs.complete(lost)
        runs.lost()
        return runs

    QUERIES = (
        "source=api",
        "source=retry,manual&status=failed,queued",
        "faultClass=infra",
        "faultClass=none,client&source=manual",
        "faultClass=client&status=failed",
        "faultClass=client&status=succeeded",
        "final=true",
        "final=true&faultClass=infra",
        "final=true&status=failed,timed_out,claimed&source=retry,manual,api",
        "final=true&source=api&endedFrom={0}",
        "endedFrom={0}&endedTo={1}",
        "endedTo={1}&status=failed,succeeded,queued",
        "endedFrom={0}&from={0}&to={1}&faultClass=infra",
        "status=queued&endedTo={1}",
        "from={0}&to={1}&source=manual&final=true&faultClass=infra,none",
    )

    def test_each_page_has_the_runs_that_fit(self, cast, many):
        """Both lists are read in one test, because the runs take a second to make."""
        client = cast.client(cast.viewer)
        urls = both_urls(cast, many)
        everything = client.get(f"{urls['trigger']}?limit=200").json()["items"]
        ends = sorted(item["endedAt"] for item in everything if item["endedAt"])
        between = (ends[5], ends[-4])
        for query in self.QUERIES:
            query = query.format(*between)
            asked = {name: value.split(",") for name, value in parse_qsl(query)}
            column = "endedAt" if {"endedFrom", "endedTo"} & set(asked) else "queuedAt"
            fitting = [item for item in everything if self.fits(item, asked)]
            fitting.sort(key=lambda item: (item[column], item["id"]), reverse=True)
            assert fitting or "queued" in query or "succeeded" in query, query
            expected = [item["id"] for item in fitting]
            for url, limit in ((urls["trigger"], 200), (urls["environment"], half(expected))):
                pages = walk(client, f"{url}?{query}", limit)
                assert [each for page in pages for each in page] == expected, (url, query)

    def test_runs_that_ended_at_the_same_moment_are_each_shown_once(self, cast, url, runs):
        allow(cast.worker.worker_id, 50)
        made = [runs.running() for _ in range(5)]
        runs.wait(days=1)
        assert runs.expire() == 5
        client, newest = cast.client(cast.viewer), sorted(map(str, made), reverse=True)
        for query in ("endedFrom=2026-01-01", "endedTo=2100-01-01&status=failed,succeeded"):
            pages = walk(client, f"{url}?{query}", 2)
            assert [each for page in pages for each in page] == newest

    def test_a_cursor_is_good_for_its_own_filters_alone(self, runs, get_one):
        runs.ended(), runs.ended()
        mine = "endedFrom=2026-01-01&source=manual"
        cursor = get_one(f"limit=1&{mine}").json()["nextCursor"]
        assert len(ids(get_one(f"{mine}&cursor={cursor}"))) == 1
        for other in (
            "",
            "endedFrom=2026-01-02&source=manual",
            "source=manual",
            f"{mine}&final=true",
        ):
            assert get_one(f"{other}&cursor={cursor}").json() == invalid(
                {"cursor": ["Not a cursor of this list with these filters."]}
            )

    @staticmethod
    def fits(item, asked):
        words = all(
            item[name] in asked[name]
            for name in ("status", "faultClass", "source")
            if name in asked
        )
        final = "final" not in asked or not item["willRetry"]
        times = all(
            item[column] is not None and begins <= item[column] < ends
            for column, first, last in (
                ("queuedAt", "from", "to"),
                ("endedAt", "endedFrom", "endedTo"),
            )
            if first in asked or last in asked
            for begins, ends in [(asked.get(first, [""])[0], asked.get(last, ["9"])[0])]
        )
        return words and final and times

    @cases(
        "query",
        ["faultClass=x", "source=cron", "final=false", "final=1", "endedFrom=x", "endedTo=%00"],
    )
    def test_anything_else_is_refused(self, get, query):
        response = get(query)
        assert response.status_code == 400
        assert list(response.json()["details"]["fieldErrors"]) == [query.partition("=")[0]]


class TestTheEnvironmentsList:
    @pytest.fixture
    def get(self, cast):
        url, client = f"/api/v1/environments/{cast.environment.id}/runs", cast.client(cast.viewer)
        return lambda query="": client.get(f"{url}?{query}")

    @pytest.fixture
    def made(self, cast, runs):
        """Makes runs of two triggers and two workers."""
        other = cast.register("host-2").worker_id
        its = cast.add_trigger(worker_id=other)
        return {
            "one": str(runs.queue()),
            "two": str(runs.queue(trigger_id=its)),
            "trigger": its,
            "worker": other,
        }

    def test_it_is_filtered_by_worker_and_trigger(self, cast, runs, get, made):
        assert ids(get(f"workerId={made['worker']}")) == [made["two"]]
        assert ids(get(f"workerId={cast.worker.worker_id}")) == [made["one"]]
        assert ids(get(f"triggerId={made['trigger']}")) == [made["two"]]
        assert ids(get(f"triggerId={runs.trigger_id}&workerId={made['worker']}")) == []
        assert ids(get("workerId=&triggerId=")) == [made["two"], made["one"]]

    def test_it_is_filtered_by_pool(self, cast, get, made):
        pool_id, other = add_pool(cast), add_pool(cast)
        Run.objects.filter(id=made["two"]).update(pool=pool_id, pool_from=NOON)
        assert ids(get(f"poolId={pool_id}")) == [made["two"]]
        assert ids(get(f"poolId={pool_id}&status=queued")) == [made["two"]]
        assert ids(get(f"poolId={other}")) == []
        assert get(f"poolId={pool_id}").json()["items"][0]["poolId"] == str(pool_id)

    def test_it_is_filtered_by_pool_and_worker_or_trigger(self, cast, get, made):
        pool_id = add_pool(cast)
        Run.objects.update(pool=pool_id, pool_from=NOON)
        assert ids(get(f"poolId={pool_id}")) == [made["two"], made["one"]]
        for name in ("worker", "trigger"):
            query = f"poolId={pool_id}&{name}Id={made[name]}"
            assert ids(get(query)) == [made["two"]]
            assert ids(get(f"{query}&status=queued,failed")) == [made["two"]]
            assert ids(get(f"{query}&status=failed")) == []
            assert ids(get(f"poolId={add_pool(cast)}&{name}Id={made[name]}")) == []

    def test_all_filters_count_together(self, runs, get, made):
        query = f"workerId={made['worker']}&status=queued&from=2026-01-01&to=2100-01-01"
        assert ids(get(query)) == [made["two"]]
        assert ids(get(f"{query}&status=failed&triggerId={runs.trigger_id}")) == []

    @cases("name", ["workerId", "poolId", "triggerId"])
    @cases("value", ["x", "1", "%00", "null"])
    def test_an_id_that_is_none_is_refused(self, get, name, value):
        response = get(f"{name}={value}")
        assert (response.status_code, response.json()) == (
            400,
            invalid({name: ["Enter a valid UUID."]}),
        )

    def test_a_deregistered_worker_and_a_deleted_trigger_still_filter(self, get, made):
        Trigger.objects.update(deleted_at="2026-01-01T00:00:00Z")
        Worker.objects.update(deleted_at="2026-01-01T00:00:00Z", token_digest=None)
        assert ids(get(f"workerId={made['worker']}&triggerId={made['trigger']}")) == [made["two"]]

    def test_a_run_that_waits_for_a_worker_has_none(self, get, made):
        Run.objects.update(worker=None)
        assert {item["workerId"] for item in get().json()["items"]} == {None}

    def test_all_bad_filters_are_named_at_once(self, get):
        response = get("status=x&from=x&to=x&workerId=x&triggerId=x")
        assert set(response.json()["details"]["fieldErrors"]) == {
            "status", "from", "to", "workerId", "triggerId",
        }  # fmt: skip


def test_the_triggers_list_knows_no_worker(cast, runs):
    runs.queue()
    url = f"/api/v1/triggers/{runs.trigger_id}/runs?workerId=garbage&triggerId=garbage"
    assert len(ids(cast.client(cast.viewer).get(url))) == 1


def test_a_bare_hour_is_in_the_triggers_zone_in_its_own_list_and_in_utc_in_the_environments(cast):
    runs = Runs.of(cast, timezone="Asia/Tokyo")
    runs.now = datetime(2026, 5, 4, 23, 30, tzinfo=UTC)
    runs.queue()
    get = cast.client(cast.viewer).get
    own, all_ = f"triggers/{runs.trigger_id}", f"environments/{cast.environment.id}"
    for url, counts in ((own, [1, 0]), (all_, [1, 1])):
        # In Tokyo the run was queued on the fifth at 8:30.
        answers = [
            get(f"/api/v1/{url}/runs?{query}")
            for query in ("from=2026-05-04T23:30", "to=2026-05-05T08:30")
        ]
        assert [len(answer.json()["items"]) for answer in answers] == counts


def test_an_hour_is_in_utc_whatever_the_zone_of_the_trigger(cast):
    runs = Runs.of(cast, timezone="Asia/Tokyo")
    runs.now = datetime(2026, 5, 4, 23, 30, tzinfo=UTC)
    runs.queue()
    (item,) = (
        cast.client(cast.viewer)
        .get(f"/api/v1/environments/{cast.environment.id}/runs?from=2026-05-04T23:30:00Z")
        .json()["items"]
    )
    assert item["queuedAt"] == "2026-05-04T23:30:00.000Z"


def test_counts_are_of_all_states_and_of_so_many_runs_at_most(cast, runs, monkeypatch):
    url, client = f"/api/v1/environments/{cast.environment.id}/runs", cast.client(cast.viewer)
    assert "counts" not in client.get(url).json()
    for status in ("succeeded", "failed", "succeeded"):
        runs.ended(status)
    for source in (Source.MANUAL, Source.API, Source.API, Source.API):
        runs.queue(source=source)
    asked = {"include": "counts", "status": "failed", "limit": 1}
    counts = {**dict.fromkeys(Status.values, 0), "succeeded": 2, "failed": 1, "queued": 4}
    assert client.get(url, asked).json()["counts"] == counts
    monkeypatch.setattr(queries, "MOST_COUNTED", 1)
    counts |= {"succeeded": 1, "queued": 1}
    assert client.get(url, asked).json()["counts"] == counts
    strange = f"/api/v1/environments/{cast.strange_environment.id}/runs"
    assert cast.client(cast.stranger).get(strange, asked).json()["counts"]["queued"] == 0
