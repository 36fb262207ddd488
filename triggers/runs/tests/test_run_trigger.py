"""POST /triggers/:id/run"""

import json
from typing import Any, ClassVar

import pytest

from testing.probes.shapes import A_TIME, NOT_FOUND, invalid
from testing.world.cases import cases
from testing.world.pools import add_pool
from testing.world.shown_rows import shown_run
from triggers.models import Run, RunText, Trigger
from workers.models import Worker


@pytest.fixture
def url(cast):
    return f"/api/v1/triggers/{cast.trigger_id}/run"


def test_a_person_queues_a_run(cast, url):
    response = cast.client(cast.operator).post(url, {})
    assert response.status_code == 201
    assert response.json() == shown_run(cast)
    assert response.json()["availableAt"] == response.json()["queuedAt"]
    assert "Idempotent-Replayed" not in response


def test_a_key_queues_one_too_and_it_shows(cast, url):
    assert cast.key_client().post(url, {}).json() == shown_run(cast, source="api")


def test_without_a_body_it_is_as_good(cast, url):
    assert cast.key_client().generic("POST", url).status_code == 201


def test_the_run_has_the_model_of_the_trigger(cast):
    trigger_id = cast.add_trigger(model="claude-opus")
    response = cast.key_client().post(f"/api/v1/triggers/{trigger_id}/run", {})
    assert response.json()["model"] == "claude-opus"


class TestThePayload:
    VALUES: ClassVar[list[Any]] = [
        None, 0, 1, -1.5, 1e300, True, False, "", "text", "é😀\u2028", [], {}, [None, [], {}],
        {"a": {"b": [1, "x", None, True]}}, {"": "", " ": " "}, {"z": 1, "a": 2}, 12345678901234567890,
    ]  # fmt: skip

    @cases("value", VALUES, undone=True)
    def test_it_comes_to_the_worker_as_it_was_given(self, cast, url, value):
        run_id = cast.key_client().post(url, {"payload": value}).json()["id"]
        poll = cast.worker_client().get(f"/api/v1/workers/{cast.worker.worker_id}/poll")
        (handed_out,) = poll.json()["runs"]
        assert handed_out["payload"] == value
        assert type(handed_out["payload"]) is type(value)
        shown = cast.client(cast.viewer).get(f"/api/v1/runs/{run_id}").json()
        assert json.dumps(shown["payload"]) == json.dumps(value)

    def test_the_order_of_its_keys_is_kept(self, cast, url):
        cast.key_client().post(
            url, '{"payload": {"b": 1, "a": 2}}', content_type="application/json"
        )
        poll = cast.worker_client().get(f"/api/v1/workers/{cast.worker.worker_id}/poll")
        assert '"payload":{"b":1,"a":2}' in poll.content.decode()

    def test_none_writes_no_row_for_it(self, cast, url):
        cast.key_client().post(url, {"payload": None})
        assert not RunText.objects.exists()

    @cases("payload", ["x" * (64 * 1024 - 2), [1] * 32 * 1023, "é" * 32767], undone=True)
    def test_up_to_64_kib_are_taken(self, cast, url, payload):
        """The limit counts compact JSON, so blanks between values do not count."""
        compact = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
        assert 64_000 < len(compact.encode()) <= 64 * 1024
        assert cast.key_client().post(url, {"payload": payload}).status_code == 201

    @cases("payload", ["x" * (64 * 1024 - 1), [1] * 32 * 1024 + [1], "é" * 32768], undone=True)
    def test_over_64_kib_are_refused(self, cast, url, payload):
        response = cast.key_client().post(url, {"payload": payload})
        assert response.status_code == 400
        assert response.json() == invalid({"payload": ["Must not be longer than 64 KiB."]})
        assert not Run.objects.exists()


class TestItIsAConflictFor:
    def test_a_disabled_trigger(self, cast, url):
        Trigger.objects.update(enabled=False)
        response = cast.key_client().post(url, {})
        assert (response.status_code, response.json()) == (
            409,
            {"error": "The trigger is paused.", "code": "trigger_disabled"},
        )

    def test_a_trigger_without_a_worker(self, cast, url):
        Trigger.objects.update(worker=None)
        response = cast.key_client().post(url, {})
        assert (response.status_code, response.json()) == (
            409,
            {
                "error": "The trigger has neither a machine nor a pool.",
                "code": "trigger_without_worker",
            },
        )

    @pytest.mark.parametrize("has_pool", [False, True])
    def test_an_environment_with_too_many_queued_runs(self, cast, url, ceilings, has_pool):
        if has_pool:
            Trigger.objects.update(worker=None, pool=add_pool(cast))
        ceilings["queuedRuns"] = 2
        client = cast.key_client()
        assert [client.post(url, {}).status_code for _ in range(2)] == [201, 201]
        response = client.post(url, {})
        assert response.status_code == 409
        assert response.json() == {
            "error": "The environment has 2 queued runs, as many as it may.",
            "code": "ceiling_reached",
            "ceiling": "queuedRuns",
        }


def test_a_deleted_trigger_is_404(cast, url):
    Trigger.objects.update(deleted_at="2026-01-01T00:00:00Z")
    response = cast.key_client().post(url, {})
    assert (response.status_code, response.json()) == (404, NOT_FOUND)


@cases("change", [{"last_seen_at": None}, {"disabled_at": "2026-01-01T00:00:00Z"}], undone=True)
def test_an_offline_or_disabled_worker_makes_no_difference(cast, url, change):
    Worker.objects.update(**change)
    assert cast.key_client().post(url, {}).status_code == 201


class TestTheIdempotencyKey:
    def send(self, client, url, key, payload=1):
        return client.post(url, {"payload": payload}, HTTP_IDEMPOTENCY_KEY=key)

    def test_a_repeat_answers_with_the_run_as_it_is_now(self, cast, url):
        client = cast.key_client()
        first = self.send(client, url, "order-42")
        assert first.status_code == 201
        cast.client(cast.owner).post(f"/api/v1/runs/{first.json()['id']}/cancel")
        repeat = self.send(client, url, "order-42")
        assert repeat.status_code == 200
        assert repeat["Idempotent-Replayed"] == "true"
        assert repeat.json() == {
            **first.json(),
            "status": "canceled",
            "endedAt": A_TIME,
            "faultClass": "none",
            "willRetry": False,
            "cancelRequested": True,
            "phases": [{"phase": "queued", "from": A_TIME, "to": A_TIME}],
        }

    def test_another_body_is_a_conflict(self, cast, url):
        client = cast.key_client()
        self.send(client, url, "order-42", 1)
        response = self.send(client, url, "order-42", 2)
        assert response.status_code == 409
        assert response.json() == {
            "error": "This Idempotency-Key was used for another request.",
            "code": "idempotency_key_reused",
        }

    @cases(
        "key", ["x", "x" * 255, "order 42", '"8e03978e-40d5-43dd"', "!~", "a,b;c=d"], undone=True
    )
    def test_it_is_any_printable_text(self, cast, url, key):
        client = cast.key_client()
        assert [self.send(client, url, key).status_code for _ in range(2)] == [201, 200]

    @cases("key", ["", "x" * 256, "a\tb", "é", "a\x7fb"], undone=True)
    def test_anything_else_is_refused(self, cast, url, key):
        response = self.send(cast.key_client(), url, key)
        assert response.status_code == 400
        assert response.json() == invalid(
            {"Idempotency-Key": ["Must be 1 to 255 printable characters."]}
        )
        assert not Run.objects.exists()

    def test_only_success_is_remembered(self, cast, url):
        client = cast.key_client()
        Trigger.objects.update(enabled=False)
        assert self.send(client, url, "order-42", 1).status_code == 409
        Trigger.objects.update(enabled=True)
        assert self.send(client, url, "order-42", 2).status_code == 201
