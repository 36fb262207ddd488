"""POST …/runs/:runId/claim, start, heartbeat and complete take the right bodies and give the right answers."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from testing.probes.shapes import A_TIME, NOT_FOUND, invalid
from testing.processes.worker_calls import WorkerCalls
from testing.world.cases import cases
from testing.world.runs import Runs, allow
from triggers.models import Run


@pytest.fixture
def calls(cast):
    allow(cast.worker.worker_id, 5)
    return WorkerCalls(cast.worker)


@pytest.fixture
def run_id(cast):
    """Returns the id of a queued run."""
    response = cast.key_client().post(f"/api/v1/triggers/{cast.trigger_id}/run", {})
    return response.json()["id"]


@pytest.fixture
def shown(cast):
    """Returns the run as the API shows it to a user."""
    client = cast.client(cast.viewer)
    return lambda run_id: client.get(f"/api/v1/runs/{run_id}").json()


def test_a_run_is_claimed_started_kept_and_completed(calls, run_id, shown):
    claimed = calls.claim(run_id, claimId="mine")
    assert (claimed.status_code, claimed.json()["status"]) == (200, "claimed")
    assert claimed.json()["claimedAt"] == A_TIME
    started = calls.start(run_id)
    assert (started.status_code, started.json()["status"]) == (200, "running")
    assert started.json()["startedAt"] == A_TIME
    beat = calls.heartbeat(run_id)
    assert beat.status_code == 200
    assert beat.json() == {
        "status": "running",
        "cancelRequested": False,
        "leaseExpiresAt": A_TIME,
        "recordEvents": "failures",
    }
    completed = calls.complete(run_id, status="succeeded", costUsd="0.0120", shortMessage="Done.")
    assert completed.status_code == 200
    ended = completed.json()
    assert (ended.pop("resumeUntil"), ended.pop("warnings")) == (None, [])
    assert (ended["status"], ended["costUsd"], ended["endedAt"]) == ("succeeded", "0.012", A_TIME)
    assert isinstance(ended["durationMs"], int)
    assert ended["shortMessage"] == "Done."
    assert {name: shown(run_id)[name] for name in ended} == ended


def test_no_answer_tells_a_worker_what_its_claim_was_called(calls, run_id):
    assert "claimId" not in calls.claim(run_id, claimId="mine").json()


class TestARefusal:
    def test_it_names_the_state_that_the_run_is_in(self, calls, run_id):
        calls.claim(run_id, claimId="mine")
        response = calls.claim(run_id, claimId="other")
        assert response.status_code == 409
        assert response.json() == {
            "error": "The run has been claimed with another claimId.",
            "code": "claimed_by_another",
            "status": "claimed",
        }

    @pytest.mark.parametrize("verb", ["start", "heartbeat", "complete"])
    def test_of_a_run_that_was_not_claimed(self, calls, run_id, verb):
        body = {"status": "succeeded"} if verb == "complete" else {}
        response = getattr(calls, verb)(run_id, **body)
        assert response.status_code == 409
        assert set(response.json()) == {"error", "code", "status"}
        assert (response.json()["code"], response.json()["status"]) == ("run_state", "queued")

    def test_of_a_run_that_is_not_due_yet(self, calls, run_id):
        Run.objects.update(available_at=Now() + timedelta(hours=1))
        response = calls.claim(run_id)
        assert (response.status_code, response.json()["code"]) == (409, "not_due")

    def test_of_a_cancel_that_nobody_asked_for(self, calls, run_id):
        calls.claim(run_id)
        response = calls.complete(run_id, status="canceled")
        assert (response.status_code, response.json()["code"]) == (409, "cancel_not_requested")

    def test_of_a_run_beyond_what_the_worker_may_hold(self, cast, calls, run_id):
        allow(cast.worker.worker_id, 1)
        second = cast.key_client().post(f"/api/v1/triggers/{cast.trigger_id}/run", {}).json()["id"]
        calls.claim(run_id)
        response = calls.claim(second)
        assert response.status_code == 409
        assert response.json() == {
            "error": "The worker holds as many runs as it may.",
            "code": "worker_full",
            "status": "queued",
        }


class TestACancel:
    """A person asks for a cancel by POST /runs/:id/cancel, and the worker learns of it."""

    def cancel(self, cast, run_id):
        return cast.client(cast.operator).post(f"/api/v1/runs/{run_id}/cancel")

    def test_a_queued_run_is_canceled_at_once(self, cast, run_id, shown):
        response = self.cancel(cast, run_id)
        assert response.status_code == 200
        canceled = response.json()
        assert (canceled["status"], canceled["cancelRequested"]) == ("canceled", True)
        assert {name: shown(run_id)[name] for name in canceled} == canceled

    def test_the_worker_learns_it_at_its_next_heartbeat(self, cast, calls, run_id):
        calls.claim(run_id)
        response = self.cancel(cast, run_id)
        assert (response.status_code, response.json()["status"]) == (200, "claimed")
        assert response.json()["cancelRequested"] is True
        assert calls.heartbeat(run_id).json()["cancelRequested"] is True
        assert calls.complete(run_id, status="canceled").json()["status"] == "canceled"

    def test_a_finished_run_is_a_conflict(self, cast, calls, run_id):
        calls.claim(run_id)
        calls.complete(run_id, status="failed")
        response = self.cancel(cast, run_id)
        assert response.status_code == 409
        assert response.json() == {
            "error": "The run is failed already.",
            "code": "run_state",
            "status": "failed",
        }


class TestTheBodyOfAClaim:
    @pytest.mark.parametrize("claim_id", [None, "", "x", "x" * 64, " é😀 "])
    def test_these_are_claim_ids(self, calls, run_id, claim_id):
        assert [calls.claim(run_id, claimId=claim_id).status_code for _ in range(2)] == [200, 200]

    def test_none_is_as_good_as_null(self, calls, run_id):
        assert calls.claim(run_id).status_code == 200
        assert calls.claim(run_id, claimId=None).status_code == 200
        assert calls.claim(run_id, claimId="").status_code == 409

    @pytest.mark.parametrize(
        ("claim_id", "message"),
        [
            ("x" * 65, "Ensure this field has no more than 64 characters."),
            (5, "Must be a string."),
            (["x"], "Must be a string."),
        ],
    )
    def test_anything_else_is_refused(self, calls, run_id, claim_id, message):
        response = calls.claim(run_id, claimId=claim_id)
        assert (response.status_code, response.json()) == (400, invalid({"claimId": [message]}))
        assert Run.objects.get().status == "queued"


TOKENS = ("inputTokens", "outputTokens", "cacheReadTokens", "cacheCreationTokens")
WHOLE = "Must be a whole number."


class TestTheBodyOfAComplete:
    @pytest.fixture
    def complete(self, calls, run_id):
        """Returns a function that completes the running run, with changes to the body."""
        calls.claim(run_id)
        calls.start(run_id)
        return lambda **body: calls.complete(run_id, **{"status": "failed", **body})

    @cases(
        ("field", "value", "message"),
        [
            ("status", None, "This field may not be null."),
            ("status", "done", '"done" is not a valid choice.'),
            ("status", "running", '"running" is not a valid choice.'),
            ("status", 5, '"5" is not a valid choice.'),
            ("faultClass", "theirs", '"theirs" is not a valid choice.'),
            ("faultClass", {}, '"{}" is not a valid choice.'),
            ("exitCode", "1", WHOLE),
            ("exitCode", 1.5, WHOLE),
            ("exitCode", True, WHOLE),
            ("shortMessage", 5, "Must be a string."),
            ("errorMessage", ["x"], "Must be a string."),
            ("sessionId", 5, "Must be a string."),
            ("model", {}, "Must be a string."),
            ("costUsd", "free", "Must be a number or a decimal string."),
            ("costUsd", [], "Must be a number or a decimal string."),
            ("costUsd", True, "Must be a number or a decimal string."),
            *((name, "5", WHOLE) for name in TOKENS),
        ],
        undone=True,
    )  # fmt: skip
    def test_a_bad_value_is_named(self, complete, field, value, message):
        response = complete(**{field: value})
        assert (response.status_code, response.json()) == (400, invalid({field: [message]}))
        assert Run.objects.get().status == "running"

    def test_the_status_is_required(self, calls, run_id):
        calls.claim(run_id)
        response = calls.complete(run_id)
        assert response.json() == invalid({"status": ["This field is required."]})

    @cases(
        ("field", "value", "stored"),
        [
            ("exitCode", -(2**31) - 1, -(2**31) - 1),
            ("exitCode", 3221225786, 3221225786),
            ("exitCode", 2**63 - 1, 2**63 - 1),
            ("exitCode", None, None),
            ("shortMessage", "", ""),
            ("shortMessage", "x" * 501, "x" * 500),
            ("shortMessage", "é" * 501, "é" * 500),
            ("shortMessage", "😀" * 501, "😀" * 500),
            ("shortMessage", " a\n", " a\n"),
            ("errorMessage", "x" * 8001, "x" * 8000),
            ("errorMessage", "x" * 500_000, "x" * 8000),
            ("sessionId", "s" * 300, "s" * 255),
            ("model", "m" * 300, "m" * 200),
            ("inputTokens", 2**63 - 1, 2**63 - 1),
            ("outputTokens", 5.0, 5),
            ("numTurns", 2**31 - 1, 2**31 - 1),
            ("costUsd", 0, "0"),
            ("costUsd", "0.0000004", "0"),
            ("costUsd", 1.23456789, "1.234568"),
            ("costUsd", "99999999", "99999999"),
            ("costUsd", None, None),
            ("faultClass", None, "client"),
            ("faultClass", "none", "client"),
            ("faultClass", "infra", "infra"),
            ("gpuSeconds", {"a": 1}, None),
        ],
        undone=True,
    )
    def test_these_are_taken(self, complete, shown, run_id, field, value, stored):
        response = complete(**{field: value})
        assert response.status_code == 200
        assert response.json().get(field) == stored
        assert shown(run_id).get(field) == stored

    @cases(
        ("field", "value"),
        [
            ("exitCode", 2**63),
            ("exitCode", -(2**63)),
            ("exitCode", 1e300),
            ("costUsd", -0.01),
            ("costUsd", "1e12"),
            ("costUsd", "NaN"),
            ("costUsd", "-Infinity"),
            ("costUsd", "1e999999"),
            ("numTurns", -1),
            ("numTurns", 2**31),
            *((name, value) for name in TOKENS for value in (-1, 2**63)),
        ],
        undone=True,
    )
    def test_an_absurd_number_costs_no_outcome(self, complete, shown, run_id, field, value):
        response = complete(**{field: value}, shortMessage="Told all the same.")
        assert response.status_code == 200
        run = shown(run_id)
        assert (run["status"], run["shortMessage"]) == ("failed", "Told all the same.")
        assert run[field] is None

    @cases("value", [0, -5, 1e300, 86401, 1.5, "soon", None, True, [], {}, "5"], undone=True)
    def test_a_retry_after_is_never_refused(self, complete, value):
        assert complete(faultClass="infra", retryAfterSeconds=value).status_code == 200

    @cases("fault", ["infra", "client", "none", None], undone=True)
    def test_success_is_nobodys_fault(self, complete, fault):
        response = complete(status="succeeded", faultClass=fault)
        assert response.json()["faultClass"] == "none"


class TestTheVersionHeader:
    def test_every_call_may_tell_a_new_version(self, cast, run_id):
        client, path = cast.worker_client(), f"/api/v1/workers/{cast.worker.worker_id}"
        for verb, version in (("claim", "2.0.1"), ("start", "2.0.2"), ("heartbeat", "2.0.3")):
            client.post(f"{path}/runs/{run_id}/{verb}", {}, HTTP_X_PIPEDAI_WORKER_VERSION=version)
            worker = cast.client(cast.viewer).get(f"/api/v1/workers/{cast.worker.worker_id}")
            assert worker.json()["version"] == version


def test_a_run_of_another_worker_is_missing(cast, calls):
    other = cast.register("host-2").worker_id
    theirs = Runs.of(cast, worker_id=other).queue()
    for verb in ("claim", "start", "heartbeat"):
        response = getattr(calls, verb)(theirs)
        assert (response.status_code, response.json()) == (404, NOT_FOUND)
