"""With an Idempotency-Key, a repeated `POST /triggers/:id/run` makes only one run."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from pipedai.api.errors import Conflict, NotFound
from pipedai.events import Actor
from pipedai.sql import execute
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.runs import Runs
from triggers.models import IdempotencyKey, Run, Trigger
from triggers.runs.queueing import Queued, run_trigger
from triggers.states import Source

CALLER = uuid4()


def _run(
    trigger_id: UUID, key: str | None = "key", payload: Any = None, *, caller_id: UUID = CALLER
) -> Queued:
    return run_trigger(
        trigger_id=trigger_id,
        caller_id=caller_id,
        key=key,
        payload=payload,
        source=Source.MANUAL,
        actor=Actor("user", caller_id),
    )


def test_the_same_key_and_body_give_the_first_run(runs: Runs) -> None:
    first, second = (_run(runs.trigger_id, payload={"a": 1}) for _ in range(2))
    assert (first.replayed, second.replayed) == (False, True)
    assert second.run["id"] == first.run["id"]
    assert Run.objects.count() == 1


def test_a_repeat_is_not_audited(runs: Runs) -> None:
    run_id = _run(runs.trigger_id).run["id"]
    _run(runs.trigger_id)
    assert runs.actions(run_id) == ["run.created"]


def test_without_a_key_each_request_makes_a_run(runs: Runs) -> None:
    assert _run(runs.trigger_id, None).run["id"] != _run(runs.trigger_id, None).run["id"]
    assert not IdempotencyKey.objects.exists()


def test_a_repeat_shows_the_run_as_it_is_now(runs: Runs) -> None:
    run_id = _run(runs.trigger_id).run["id"]
    runs.cancel(run_id)
    assert _run(runs.trigger_id).run["status"] == "canceled"


@cases(
    "change",
    [
        {"enabled": False},
        {"worker": None},
        {"deleted_at": "2026-05-04T12:00Z"},
        {"max_retries": 0, "name": "Renamed"},
    ],
    undone=True,
)
def test_a_repeat_is_answered_whatever_became_of_the_trigger(runs: Runs, change: dict) -> None:
    first = _run(runs.trigger_id)
    Trigger.objects.filter(id=runs.trigger_id).update(**change)
    second = _run(runs.trigger_id)
    assert (second.replayed, second.run["id"]) == (True, first.run["id"])


# --- The body


@cases(
    ("first", "second"),
    [
        ({"a": 1, "b": [2, {"c": 3, "d": 4}]}, {"b": [2, {"d": 4, "c": 3}], "a": 1}),
        (1, 1.0),
        ({"a": [0]}, {"a": [-0.0]}),
        (1e3, 1000),
        ("é", "\u00e9"),
        (None, None),
    ],
    undone=True,
)
def test_these_are_the_same_body(runs: Runs, first: Any, second: Any) -> None:
    _run(runs.trigger_id, payload=first)
    assert _run(runs.trigger_id, payload=second).replayed


@cases(
    ("first", "second"),
    [
        (None, {}),
        (1, 2),
        (1, "1"),
        (1, True),
        (0, False),
        (1, 1.5),
        ([1, 2], [2, 1]),
        ({"a": None}, {}),
        ("a", "A"),
        ("\u00e9", "e\u0301"),
    ],
    undone=True,
)
def test_another_body_is_a_conflict(runs: Runs, first: Any, second: Any) -> None:
    run_id = _run(runs.trigger_id, payload=first).run["id"]
    with pytest.raises(Conflict, match="another request"):
        _run(runs.trigger_id, payload=second)
    assert list(Run.objects.values_list("id", flat=True)) == [run_id]


def test_a_payload_that_looks_like_a_body_with_options_is_another_body(runs: Runs) -> None:
    of: dict[str, Any] = {
        "trigger_id": runs.trigger_id,
        "caller_id": CALLER,
        "key": "key",
        "source": Source.MANUAL,
        "actor": Actor("user", CALLER),
    }
    run_trigger(**of, payload={"payload": 1, "force": True, "look_only": False})
    with pytest.raises(Conflict, match="another request"):
        run_trigger(**of, payload=1, force=True)


# --- The scope of a key


def test_a_key_counts_per_trigger(runs: Runs) -> None:
    other = runs.cast.add_trigger()
    assert not _run(runs.trigger_id).replayed
    assert not _run(other).replayed


def test_a_key_counts_per_caller(runs: Runs) -> None:
    for caller in (CALLER, uuid4()):
        first, second = (_run(runs.trigger_id, caller_id=caller) for _ in range(2))
        assert (first.replayed, second.replayed) == (False, True)
        assert second.run["id"] == first.run["id"]


def test_keys_are_compared_as_they_are(runs: Runs) -> None:
    assert not _run(runs.trigger_id, "key").replayed
    assert not _run(runs.trigger_id, "KEY").replayed


# --- How long a key is remembered


def test_a_key_is_remembered_for_a_day(runs: Runs) -> None:
    first = _run(runs.trigger_id)
    _age(hours=23, minutes=59)
    assert _run(runs.trigger_id).run["id"] == first.run["id"]
    _age(minutes=2)
    anew = _run(runs.trigger_id, payload={"another": "body"})
    assert not anew.replayed
    assert anew.run["id"] != first.run["id"]
    assert _run(runs.trigger_id, payload={"another": "body"}).run["id"] == anew.run["id"]
    assert IdempotencyKey.objects.count() == 1


def _age(*, hours: int = 0, minutes: int = 0) -> None:
    execute(
        "UPDATE idempotency_key SET created_at = created_at - make_interval(hours => %(h)s, mins => %(m)s)",
        {"h": hours, "m": minutes},
    )


# --- Only success is remembered


def test_a_refusal_is_not_remembered(runs: Runs) -> None:
    Trigger.objects.filter(id=runs.trigger_id).update(enabled=False)
    with pytest.raises(Conflict, match="paused"):
        _run(runs.trigger_id)
    Trigger.objects.filter(id=runs.trigger_id).update(enabled=True, worker=None)
    with pytest.raises(Conflict, match="neither a machine nor a pool"):
        _run(runs.trigger_id, payload={"another": "body"})
    Trigger.objects.filter(id=runs.trigger_id).update(worker=runs.cast.worker.worker_id)
    assert not _run(runs.trigger_id).replayed


def test_a_refusal_after_a_day_keeps_what_was_remembered(runs: Runs) -> None:
    first = _run(runs.trigger_id)
    _age(hours=25)
    Trigger.objects.filter(id=runs.trigger_id).update(enabled=False)
    with pytest.raises(Conflict, match="paused"):
        _run(runs.trigger_id)
    assert IdempotencyKey.objects.get().run_id == first.run["id"]


def test_there_must_be_such_a_trigger(runs: Runs) -> None:
    with pytest.raises(NotFound):
        _run(uuid4())
    Trigger.objects.filter(id=runs.trigger_id).update(deleted_at=runs.now)
    with pytest.raises(NotFound):
        _run(runs.trigger_id)


# --- Over HTTP


def _post(client: Any, trigger_id: UUID, body: Any = None, key: str = "key") -> Any:
    return client.post(
        f"/api/v1/triggers/{trigger_id}/run", body or {}, format="json", HTTP_IDEMPOTENCY_KEY=key
    )


def test_over_http_a_repeat_is_a_200_and_says_so(cast: Cast) -> None:
    client = cast.key_client()
    first, second = (_post(client, cast.trigger_id, {"payload": {"a": 1}}) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.json() == first.json()


def test_over_http_another_body_is_a_409(cast: Cast) -> None:
    client = cast.key_client()
    _post(client, cast.trigger_id)
    answer = _post(client, cast.trigger_id, {"payload": 1})
    assert answer.status_code == 409
    assert answer.json() == {
        "error": "This Idempotency-Key was used for another request.",
        "code": "idempotency_key_reused",
    }


def test_over_http_an_absent_payload_is_as_good_as_null(cast: Cast) -> None:
    client = cast.key_client()
    _post(client, cast.trigger_id, {"payload": None})
    assert _post(client, cast.trigger_id, {}).status_code == 200


def test_over_http_a_user_is_one_caller_in_all_browsers(cast: Cast) -> None:
    assert _post(cast.client(cast.operator), cast.trigger_id).status_code == 201
    assert _post(cast.client(cast.operator), cast.trigger_id).status_code == 200
    assert _post(cast.client(cast.admin), cast.trigger_id).status_code == 201
    assert _post(cast.key_client(), cast.trigger_id).status_code == 201


@cases("key", ["x", "x" * 255, "!~"], undone=True)
def test_over_http_these_keys_are_taken(cast: Cast, key: str) -> None:
    assert _post(cast.key_client(), cast.trigger_id, key=key).status_code == 201


@cases("key", ["", "x" * 256, "a\tb", "a\x7f", "é"], undone=True)
def test_over_http_these_keys_are_refused(cast: Cast, key: str) -> None:
    answer = _post(cast.key_client(), cast.trigger_id, key=key)
    assert answer.status_code == 400
    assert list(answer.json()["details"]["fieldErrors"]) == ["Idempotency-Key"]
    assert not Run.objects.exists()
