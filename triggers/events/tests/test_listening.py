"""`on` of a trigger: to which sources and triggers it listens."""

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from pipedai.ids import new_id
from testing.probes.audited import audited
from testing.probes.shapes import invalid
from testing.processes.racing import at_once
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.events import add_source, listen
from triggers.models import EventSource, Listener, Trigger, TriggerRevision


def url_of(trigger_id: UUID) -> str:
    return f"/api/v1/triggers/{trigger_id}"


def patch(cast: Cast, *on: dict[str, Any], trigger_id: UUID | None = None) -> Any:
    url = url_of(trigger_id or cast.trigger_id)
    return cast.client(cast.admin).patch(url, {"on": list(on)})


def to_source(source_id: UUID, **more: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("types", "where", "fields", "coalesce"))
    return {"sourceId": str(source_id), **nothing, **more}


def to_trigger(trigger_id: UUID, outcome: str = "succeeded") -> dict[str, Any]:
    return {"triggerId": str(trigger_id), "outcome": outcome}


# --- Setting it


def test_entries_are_shown_as_they_were_given_and_in_their_order(cast: Cast) -> None:
    source_id, upstream = add_source(cast), cast.add_trigger()
    where = [{"path": "/a~1b/0", "op": "in", "value": [1, "1", True, None]}]
    full = to_source(
        source_id,
        types=["push", "release"],
        where=where,
        fields={"ref": "/ref", "all": ""},
        coalesce={"path": "/ref", "windowSeconds": 60, "keep": "all"},
    )
    entries = [full, to_trigger(upstream, "any"), to_source(source_id)]
    shown = patch(cast, *entries).json()
    assert shown["on"] == entries
    assert patch(cast, *entries).json() == shown, "the same again changes nothing"
    assert patch(cast, *shown["on"][::-1]).json()["on"] == entries[::-1]
    assert patch(cast).json()["on"] == []


def test_what_is_left_out_has_defaults(cast: Cast) -> None:
    source_id, upstream = add_source(cast), cast.add_trigger()
    coalesce: dict[str, Any] = {"path": "/id", "windowSeconds": 1}
    body: list[dict[str, Any]] = [
        {"sourceId": str(source_id), "coalesce": coalesce},
        {"triggerId": str(upstream)},
    ]
    assert patch(cast, *body).json()["on"] == [
        to_source(source_id, coalesce={**coalesce, "keep": "last"}),
        to_trigger(upstream),
    ]


def test_a_new_trigger_may_listen_at_once(cast: Cast) -> None:
    body = {"name": "n", "prompt": "p", "mcpUrl": "https://mcp.example/"}
    entries = [to_source(add_source(cast)), to_trigger(cast.trigger_id, "failed")]
    path = f"/api/v1/environments/{cast.environment.id}/triggers"
    answer = cast.client(cast.admin).post(path, {**body, "on": entries})
    assert answer.status_code == 201
    assert cast.client(cast.viewer).get(url_of(answer.json()["id"])).json()["on"] == entries


def test_the_audit_row_says_old_and_new_and_the_revision_stays(cast: Cast) -> None:
    entry = to_source(add_source(cast))
    with audited() as rows:
        patch(cast, entry)
    assert rows.told() == [("trigger.updated", {"on": [[], [entry]]})]
    assert TriggerRevision.objects.filter(trigger_id=cast.trigger_id).count() == 1
    other = to_source(add_source(cast), types=["x" * 200])
    with audited() as rows:
        patch(cast, other)
    ((_, told),) = rows.told()
    assert len(told["on"][1]) == 201, "a long one is cut"


def test_one_and_true_are_two_values(cast: Cast) -> None:
    source_id = add_source(cast)
    for value in (1, True, 1.5):
        where = [{"path": "/a", "op": "eq", "value": value}]
        shown = patch(cast, to_source(source_id, where=where)).json()["on"]
        assert json.dumps(shown[0]["where"][0]["value"]) == json.dumps(value)


# --- What is refused


@cases(
    ("entry", "errors"),
    [
        ({}, {"on.0": "Must have either a sourceId or a triggerId."}),
        (5, {"on.0": "Invalid data. Expected a dictionary, but got int."}),
        (None, {"on.0": "This field may not be null."}),
        ({"sourceId": str(new_id()), "triggerId": str(new_id())},
         {"on.0": "Must have either a sourceId or a triggerId."}),
        ({"sourceId": "x"}, {"on.0.sourceId": "Must be a valid UUID."}),
        ({"sourceId": str(new_id())}, {"on.0.sourceId": "No such source in this environment."}),
        ({"triggerId": str(new_id())}, {"on.0.triggerId": "No such trigger in this environment."}),
        ({"sourceId": str(new_id()), "outcome": "any"}, {"on.0.outcome": "Not for a source."}),
        ({"triggerId": str(new_id()), "types": ["x"]}, {"on.0.types": "Not for a trigger."}),
        ({"triggerId": str(new_id()), "outcome": "canceled"},
         {"on.0.outcome": '"canceled" is not a valid choice.'}),
        ({"sourceId": str(new_id()), "types": []},
         {"on.0.types": "Ensure this field has at least 1 elements."}),
        ({"sourceId": str(new_id()), "where": [{"path": "/a", "op": "eq"}]},
         {"on.0.where.0.value": "This field is required."}),
        ({"sourceId": str(new_id()), "extra": 1}, {"on.0.extra": "Unknown field."}),
        ({"sourceId": str(new_id()), "coalesce": {"path": "/a", "windowSeconds": 0}},
         {"on.0.coalesce.windowSeconds": "Ensure this value is greater than or equal to 1."}),
        ({"sourceId": str(new_id()), "where": [{"path": "a", "op": "eq", "value": 1}]},
         {"on.0.where.0.path": "Must be a JSON Pointer, such as /action: empty or beginning with /, and ~ only as"
          " ~0 or ~1."}),
        ({"sourceId": str(new_id()), "types": ["x" * 200] * 50, "fields": {"a" * 100: "/" + "b" * 499},
          "where": [{"path": "/" + "c" * 400, "op": "eq", "value": 1}] * 15},
         {"on": "Must not be longer than 16 KiB."}),
    ], undone=True)  # fmt: skip
def test_a_bad_entry_is_named(cast: Cast, entry: Any, errors: dict[str, str]) -> None:
    answer = patch(cast, entry)
    found = answer.json()["details"]["fieldErrors"]
    assert answer.status_code == 400
    assert errors.items() <= {name: message[0] for name, message in found.items()}.items(), found
    assert "on" in found
    assert not Listener.objects.exists()


def test_what_others_have_or_is_deleted_is_missing(cast: Cast) -> None:
    strange, deleted = add_source(cast), add_source(cast)
    EventSource.objects.filter(id=deleted).update(
        deleted_at="2026-01-01T00:00:00Z", secrets=None, secrets_key=None
    )
    gone = cast.add_trigger()
    Trigger.objects.filter(id=gone).update(deleted_at="2026-01-01T00:00:00Z")
    foreign = replace(cast, environment=cast.strange_environment)
    entries = [to_source(add_source(foreign)), to_source(deleted)]
    entries += [to_trigger(foreign.add_trigger(worker_id=None)), to_trigger(gone)]
    for entry in entries:
        name = next(iter(entry))
        message = f"No such {name.removesuffix('Id')} in this environment."
        assert patch(cast, to_source(strange), entry).json() == invalid(
            {"on": [f"1.{name}: {message}"], f"on.1.{name}": [message]}
        )


def test_a_circle_is_refused(cast: Cast) -> None:
    first, second, third = (cast.add_trigger() for _ in range(3))
    assert patch(cast, to_trigger(first), trigger_id=second).status_code == 200
    assert patch(cast, to_trigger(second), trigger_id=third).status_code == 200
    for trigger_id, upstream in ((first, third), (first, second), (first, first)):
        answer = patch(cast, to_trigger(upstream), trigger_id=trigger_id)
        assert (answer.status_code, answer.json()["code"]) == (409, "chain_circle")
    assert patch(cast, to_trigger(first), trigger_id=third).status_code == 200


def test_two_changes_at_once_make_no_circle(committed_cast: Cast) -> None:
    first, second = committed_cast.add_trigger(), committed_cast.add_trigger()
    answers = at_once(
        lambda: patch(committed_cast, to_trigger(second), trigger_id=first).status_code,
        lambda: patch(committed_cast, to_trigger(first), trigger_id=second).status_code,
    )
    assert sorted(map(str, answers)) == ["200", "409"]
    assert Listener.objects.count() == 1


@pytest.mark.parametrize("kind", ["source", "trigger"])
def test_at_most_as_many_triggers_as_may_listen_to_one(
    cast: Cast, ceilings: Any, kind: str
) -> None:
    ceilings["listeners"] = 2
    heard = to_source(add_source(cast)) if kind == "source" else to_trigger(cast.add_trigger())
    first, second, third = (cast.add_trigger() for _ in range(3))
    assert patch(cast, heard, heard, trigger_id=first).status_code == 200, "one trigger counts once"
    assert patch(cast, heard, trigger_id=second).status_code == 200
    assert patch(cast, heard, {**heard}, trigger_id=second).status_code == 200
    answer = patch(cast, heard, trigger_id=third)
    assert (answer.status_code, answer.json()["code"]) == (409, "ceiling_reached")
    assert answer.json()["ceiling"] == "listeners"
    patch(cast, trigger_id=first)
    assert patch(cast, heard, trigger_id=third).status_code == 200


# --- Deleting


def test_a_trigger_that_others_listen_to_stays(cast: Cast) -> None:
    upstream, client = cast.add_trigger(), cast.client(cast.admin)
    listen(cast.trigger_id, upstream_id=upstream, outcome="any")
    answer = client.delete(url_of(upstream))
    assert answer.status_code == 409
    assert answer.json() == {"error": "1 trigger listens to it.", "code": "has_children"}
    assert client.delete(url_of(cast.trigger_id)).status_code == 204
    assert not Listener.objects.exists()
    assert client.delete(url_of(upstream)).status_code == 204


def test_a_trigger_is_not_deleted_while_another_begins_to_listen(committed_cast: Cast) -> None:
    upstream = committed_cast.add_trigger()
    listening, deleting = at_once(
        lambda: patch(committed_cast, to_trigger(upstream)).status_code,
        lambda: committed_cast.client(committed_cast.admin).delete(url_of(upstream)).status_code,
    )
    assert (listening, deleting) in ((200, 409), (400, 204))


# --- Who listens


def test_triggers_are_filtered_by_what_they_listen_to(cast: Cast) -> None:
    source_id, upstream = add_source(cast), cast.add_trigger()
    listener = cast.add_trigger()
    for heard in ({"source_id": source_id}, {"source_id": source_id}):
        listen(listener, **heard)
    listen(cast.trigger_id, upstream_id=upstream, outcome="failed")
    client = cast.client(cast.viewer)
    path = f"/api/v1/environments/{cast.environment.id}/triggers"
    for asked, expected in ((source_id, listener), (upstream, cast.trigger_id)):
        items = client.get(path, {"listensTo": str(asked)}).json()["items"]
        assert [item["id"] for item in items] == [str(expected)]
    assert client.get(path, {"listensTo": str(new_id())}).status_code == 400
