"""GET and PATCH /workers/:id"""

import pytest
from django.db.models import F
from django.db.models.functions import Now

from testing.probes.audited import audited
from testing.probes.shapes import NOT_FOUND, invalid
from testing.processes.worker_calls import WorkerCalls
from testing.world.plain_fields import plain_fields, refused_by, samples_of
from testing.world.runs import Runs
from testing.world.shown_rows import shown_worker
from workers.models import ONLINE_WITHIN, Worker
from workers.serializers import WorkerBody

# A valid value of each field, other than the one that the cast's worker has. A field that is not plain needs its own.
SAMPLES = samples_of(WorkerBody)
# The fields that are not shown as they are sent; test_accounts.py tests them.
NOT_SHOWN = {"accountId", "limitedUntil"}


@pytest.fixture
def url(cast):
    return f"/api/v1/workers/{cast.worker.worker_id}"


@pytest.fixture
def patch(cast, url):
    """Returns a function that sends a PATCH as the admin, checks that it succeeds, and returns the answer."""

    def patching(**body):
        response = cast.client(cast.admin).patch(url, body)
        assert response.status_code == 200, response.content
        return response.json()

    return patching


def read(cast, url):
    return cast.client(cast.viewer).get(url).json()


class TestReading:
    def test_shows_the_worker(self, cast, url):
        assert read(cast, url) == shown_worker(cast)

    def test_follows_what_it_does(self, cast, url):
        seen = lambda: tuple(read(cast, url)[name] for name in ("status", "derivedStatus"))  # noqa: E731
        WorkerCalls(cast.worker).poll()
        assert seen() == ("online", "online")
        run_id = Runs(cast, cast.trigger_id).running()
        assert seen() == ("online", "busy")
        assert read(cast, url)["currentRunId"] == str(run_id)
        Worker.objects.update(disabled_at=Now())
        assert seen() == ("online", "disabled")
        Worker.objects.update(last_seen_at=Now() - ONLINE_WITHIN)
        assert seen() == ("offline", "disabled")
        Worker.objects.update(disabled_at=None)
        assert seen() == ("offline", "busy")

    def test_a_deregistered_one_is_404(self, cast, url):
        Worker.objects.update(deleted_at=F("created_at"), token_digest=None)
        response = cast.client(cast.owner).get(url)
        assert (response.status_code, response.json()) == (404, NOT_FOUND)


class TestChanging:
    @pytest.mark.parametrize("field", sorted(set(WorkerBody().fields) - NOT_SHOWN))
    def test_each_field_and_the_row_says_old_and_new(self, cast, url, patch, field):
        assert field in SAMPLES, f"{field} has no sample in SAMPLES of this file"
        before, value = read(cast, url), SAMPLES[field]
        with audited() as rows:
            after = patch(**{field: value})
        changed = {name for name in after if after[name] != before[name]}
        assert changed - {"derivedStatus"} == {field}
        metadata = rows.the_only(
            "worker.updated",
            by=("user", cast.admin.id),
            on=("worker", cast.worker.worker_id),
            within=cast.environment.id,
        )
        assert metadata == {field: [before[field], value]}

    def test_all_at_once_is_one_row(self, patch):
        with audited() as rows:
            assert patch(**SAMPLES) == patch(**SAMPLES)
        assert [set(metadata) for _, metadata in rows.told()] == [set(SAMPLES)]

    @pytest.mark.parametrize("body", [{}, {"label": "host-1"}, {"disabled": False}], ids=str)
    def test_what_is_as_it_was_changes_nothing(self, cast, url, patch, body):
        before = read(cast, url)
        with audited() as rows:
            assert patch(**body) == before
        assert rows == []

    def test_a_disabled_one_finishes_what_it_holds_and_gets_nothing_new(self, cast, patch):
        Worker.objects.update(max_concurrency=2)
        runs, calls = Runs(cast, cast.trigger_id), WorkerCalls(cast.worker)
        held, queued = runs.running(), runs.queue()
        patch(disabled=True)
        assert calls.poll().json()["runs"] == []
        refused = calls.claim(queued)
        assert (refused.status_code, refused.json()["code"]) == (409, "worker_disabled")
        assert calls.complete(held, status="succeeded").status_code == 200
        patch(disabled=False)
        assert [run["id"] for run in calls.poll().json()["runs"]] == [str(queued)]

    def test_fewer_runs_than_it_holds_end_none_and_allow_none(self, cast, patch):
        Worker.objects.update(max_concurrency=3)
        runs, calls = Runs(cast, cast.trigger_id), WorkerCalls(cast.worker)
        held, queued = [runs.running(), runs.running()], runs.queue()
        patch(maxConcurrency=1)
        assert calls.claim(queued).status_code == 409
        assert [calls.heartbeat(run_id).status_code for run_id in held] == [200, 200]

    @pytest.mark.parametrize("field", [*plain_fields(WorkerBody), "hostname", "Label"])
    def test_a_bad_field_is_named_and_nothing_changes(self, cast, url, field):
        before, fields = read(cast, url), plain_fields(WorkerBody)
        bad = refused_by(fields[field]) if field in fields else [("other", "Unknown field.")]
        with audited() as rows:
            for value, message in bad:
                response = cast.client(cast.admin).patch(url, {field: value})
                assert (response.status_code, response.json()) == (400, invalid({field: [message]}))
        assert (rows, read(cast, url)) == ([], before)
