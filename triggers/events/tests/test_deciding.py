"""What an event of a source starts, and why it starts nothing."""

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from time import thread_time
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction

from audit.models import AuditEntry
from pipedai.sql import database_now
from testing.probes.plans import explained
from testing.probes.statement_count import counted
from testing.processes.racing import at_once
from testing.world.budgets import add_budget
from testing.world.cast import Cast
from testing.world.copied_rows import copy_row
from testing.world.events import add_event, add_source, listen
from testing.world.runs import Runs
from triggers.events.clauses import TooLarge
from triggers.events.deciding import decide, payload_of
from triggers.models import Event, EventDecision, Run, RunText, Trigger, TriggerRevision
from workspaces.models import Environment

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
OPENED = {"action": "opened", "number": 7, "draft": False, "labels": ["bug"]}


class World:
    """A source, a trigger that listens to it, and a clock that stands still."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self.source_id = add_source(cast)
        self.trigger_id = cast.add_trigger()
        self.now = NOON

    def listen(self, trigger_id: UUID | None = None, **values: Any) -> UUID:
        return listen(trigger_id or self.trigger_id, source_id=self.source_id, **values).id

    def event(self, body: Any = OPENED, type_: str | None = "pull_request") -> Event:
        values = {"source_id": self.source_id, "body": body, "type": type_}
        event = add_event(self.cast, **values, received_at=self.now)
        return Event.objects.get(id=event.id)

    def decide(
        self, body: Any = OPENED, type_: str | None = "pull_request", *, by: UUID | None = None
    ) -> EventDecision:
        """Lets an event come, and returns the one decision about it, as it is stored."""
        event = self.event(body, type_)
        with transaction.atomic():
            decide(event, requesters=[by] if by else [], now=self.now)
        return EventDecision.objects.get(event=event)

    def payload(self, run_id: Any) -> Any:
        return RunText.objects.get(run_id=run_id).payload


@pytest.fixture
def world(cast: Cast) -> World:
    return World(cast)


# --- What a run gets


def test_a_payload_of_many_whole_bodies_is_refused_in_hardly_longer_than_one(world: World) -> None:
    event = world.event({"ids": list(range(30_000))})
    took = []
    for paths in ({"n0": ""}, {f"n{n}": "" for n in range(50)}):
        begun = thread_time()
        with pytest.raises(TooLarge):
            payload_of(event, paths)
        took.append(thread_time() - begun)
    assert took[1] < 10 * took[0]


def test_an_event_queues_a_run_with_its_data(world: World) -> None:
    world.listen()
    decision = world.decide()
    assert (decision.decision, decision.code, decision.clause) == ("fired", None, None)
    run = Run.objects.get(trigger_id=world.trigger_id)
    assert (run.id, run.event_id) == (decision.run_id, decision.event_id)
    assert (run.source, run.status, run.available_at) == ("event", "queued", NOON)
    assert world.payload(run.id) == {
        "event": {
            "id": str(decision.event_id),
            "source": {"type": "source", "id": str(world.source_id), "name": "Repository"},
            "type": "pull_request",
            "receivedAt": "2026-05-04T12:00:00.000Z",
        },
        "data": OPENED,
    }
    entry = AuditEntry.objects.get(action="run.created", target_id=run.id)
    assert entry.actor_type == "system"
    assert entry.metadata["eventId"] == str(decision.event_id)


def test_fields_pick_what_the_run_gets_and_nothing_enters_the_prompt(world: World) -> None:
    world.listen(fields={"pr": "/number", "label": "/labels/0", "who": "/sender/login"})
    run_id = world.decide().run_id
    assert world.payload(run_id)["data"] == {"pr": 7, "label": "bug", "who": None}
    revision = Run.objects.get(id=str(run_id)).revision_id
    assert TriggerRevision.objects.get(id=revision).prompt == "Report."


# --- Who hears it


def test_the_clause_that_did_not_hold_is_kept_with_what_it_saw(world: World) -> None:
    clauses: list[dict[str, Any]] = [
        {"path": "/action", "op": "eq", "value": "opened"},
        {"path": "/draft", "op": "eq", "value": True},
    ]
    world.listen(where=clauses)
    decision = world.decide()
    assert (decision.decision, decision.run_id) == ("filtered", None)
    assert decision.clause == {**clauses[1], "saw": "false"}
    assert world.decide({**OPENED, "draft": True}).decision == "fired"


def test_another_type_does_not_pass(world: World) -> None:
    world.listen(types=["pull_request", "push"])
    assert world.decide().decision == "fired"
    for type_, saw in (("issues", '"issues"'), (None, None)):
        decision = world.decide(type_=type_)
        expected = {"path": None, "op": "type", "value": ["pull_request", "push"], "saw": saw}
        assert (decision.decision, decision.clause) == ("filtered", expected)


def test_the_first_entry_that_lets_it_pass_decides(world: World) -> None:
    never = [{"path": "/action", "op": "eq", "value": "closed"}]
    world.listen(where=never)
    world.listen(fields={"number": "/number"})
    world.listen()
    decision = world.decide()
    assert world.payload(decision.run_id)["data"] == {"number": 7}
    assert Run.objects.filter(trigger_id=world.trigger_id).count() == 1


def test_each_trigger_that_listens_has_a_decision_of_its_own(world: World) -> None:
    other, deaf = world.cast.add_trigger(), world.cast.add_trigger()
    world.listen()
    world.listen(other, types=["push"])
    listen(deaf, source_id=add_source(world.cast))
    event = world.event()
    decide(event)
    decided = EventDecision.objects.filter(event=event).values_list("trigger_id", "decision")
    assert set(decided) == {(world.trigger_id, "fired"), (other, "filtered")}


# --- What is refused


@pytest.mark.parametrize(
    ("code", "columns"),
    [
        ("trigger_disabled", {"enabled": False}),
        ("trigger_without_worker", {"worker_id": None}),
        ("environment_paused", {}),
        ("budget_exhausted", {}),
        ("ceiling_reached", {}),
    ],
)
def test_a_refusal_has_the_code_that_run_would_answer(world, ceilings, code, columns):
    world.listen()
    Trigger.objects.filter(id=world.trigger_id).update(**columns)
    if code == "environment_paused":
        Environment.objects.filter(id=world.cast.environment.id).update(paused_at=NOON)
    if code == "budget_exhausted":
        add_budget(world.cast, limit_runs=0, when_reached="reject")
    if code == "ceiling_reached":
        ceilings["queuedRuns"] = 0
    url = f"/api/v1/triggers/{world.trigger_id}/run"
    assert world.cast.client(world.cast.operator).post(url, {}).json()["code"] == code
    decision = world.decide()
    assert (decision.decision, decision.code, decision.run_id) == ("refused", code, None)
    assert not Run.objects.filter(trigger_id=world.trigger_id).exists()


def test_a_refusal_for_one_trigger_leaves_the_others_their_runs(world: World) -> None:
    disabled = world.cast.add_trigger(enabled=False)
    world.listen(disabled)
    world.listen()
    event = world.event()
    decide(event)
    decided = EventDecision.objects.filter(event=event).values_list("trigger_id", "decision")
    assert set(decided) == {(disabled, "refused"), (world.trigger_id, "fired")}


def test_the_triggers_of_one_event_fill_the_queue_no_further_than_it_may_be(world, ceilings):
    ceilings["queuedRuns"] = 2
    for _ in range(4):
        world.listen(world.cast.add_trigger())
    decide(world.event())
    decided = EventDecision.objects.order_by("trigger_id").values_list("decision", "code")
    assert list(decided) == [("fired", None)] * 2 + [("refused", "ceiling_reached")] * 2


@pytest.mark.parametrize("most", [1_600, 600], ids=["room", "full"])
def test_the_triggers_of_one_event_count_the_queue_once(world, ceilings, most):
    queued = Runs(world.cast, world.trigger_id).queue()
    copy_row(Run, queued, 599)
    ceilings["queuedRuns"] = most
    triggers = [world.cast.add_trigger() for _ in range(8)]
    for trigger_id in triggers:
        world.listen(trigger_id)
    world.listen(world.cast.add_trigger(enabled=False))
    event = world.event()
    with explained(("SELECT", "WITH")) as plans:
        decide(event)
    decided = EventDecision.objects.filter(event=event).values_list(
        "trigger_id", "decision", "code"
    )
    expected = ("fired", None) if most > 600 else ("refused", "ceiling_reached")
    assert {(each, *expected) for each in triggers} <= set(decided)
    assert {row[1:] for row in decided} == {expected, ("refused", "trigger_disabled")}
    # Once to see that the queue is long, and once under the environment's lock.
    assert plans.rows_read("run") < 3 * 600


def test_a_payload_over_the_limit_is_refused(world: World) -> None:
    world.listen()
    decision = world.decide({"text": "x" * 65_000})
    assert decision.decision == "fired"
    decision = world.decide({"text": "x" * 65_536})
    assert (decision.decision, decision.code) == ("refused", "payload_too_large")


def test_an_event_whose_strings_too_many_clauses_search_is_refused_for_the_others(
    world: World,
) -> None:
    clauses = [{"path": "/text", "op": "contains", "value": "x"}] * 19
    never = {"path": "/text", "op": "exists", "value": False}
    triggers = [world.trigger_id, world.cast.add_trigger(), world.cast.add_trigger()]
    for each in triggers:
        for _ in range(10):
            world.listen(each, where=[*clauses, never])
    event = world.event({"text": "x" * 256 * 1024})
    decide(event, now=world.now)
    decided = EventDecision.objects.filter(event=event).values_list("decision", "code")
    filtered, refused = ("filtered", None), ("refused", "payload_too_large")
    assert sorted(decided) == [filtered, filtered, refused]


# --- Coalescing


def coalesce(keep: str = "last", path: str = "/number", seconds: int = 60) -> dict[str, Any]:
    return {"path": path, "windowSeconds": seconds, "keep": keep}


def test_later_events_of_one_value_join_the_run_of_the_first(world: World) -> None:
    world.listen(coalesce=coalesce())
    first = world.decide()
    world.now += timedelta(seconds=59)
    second = world.decide({**OPENED, "action": "edited"})
    other = world.decide({**OPENED, "number": 8})
    assert (first.decision, second.decision, other.decision) == ("fired", "coalesced", "fired")
    assert first.run_id == second.run_id != other.run_id
    run = Run.objects.get(id=str(first.run_id))
    # It is due when the window has passed, and a second more for events that came in its last moment.
    assert run.available_at == NOON + timedelta(seconds=61)
    assert run.event_id == second.event_id
    assert world.payload(run.id)["data"]["action"] == "edited"
    assert world.payload(run.id)["event"]["id"] == str(second.event_id)


@pytest.mark.parametrize("keep", ["last", "all"])
def test_who_replays_an_event_into_a_run_has_requested_it(world: World, keep: str) -> None:
    """Else they could approve calls about what they have put in."""
    world.listen(coalesce=coalesce(keep))
    cast = world.cast
    run_id = world.decide().run_id
    # However many others put something in after them.
    for by in (cast.operator.id, None, cast.admin.id, cast.owner.id, cast.admin.id):
        assert world.decide(by=by).run_id == run_id
    run = Run.objects.get(id=str(run_id))
    assert run.requested_by == cast.operator.id
    assert set(run.also_requested_by or ()) == {cast.admin.id, cast.owner.id}
    assert len(run.also_requested_by or ()) == 2


def test_the_run_of_all_has_every_event_in_order(world: World) -> None:
    world.listen(coalesce=coalesce("all"), fields={"action": "/action"})
    decisions = [world.decide({**OPENED, "action": action}) for action in ("a", "b", "c")]
    payload = world.payload(decisions[0].run_id)
    assert [each["data"]["action"] for each in payload["events"]] == ["a", "b", "c"]
    assert [each["event"]["id"] for each in payload["events"]] == [
        str(decision.event_id) for decision in decisions
    ]
    assert payload["omitted"] == 0
    assert Run.objects.get(id=str(decisions[0].run_id)).event_id == decisions[0].event_id


def test_over_the_limit_the_oldest_are_omitted(world: World) -> None:
    world.listen(coalesce=coalesce("all"))
    for number in range(4):
        decision = world.decide({"number": 7, "nth": number, "text": "x" * 30_000})
    payload = world.payload(decision.run_id)
    assert [each["data"]["nth"] for each in payload["events"]] == [2, 3]
    assert payload["omitted"] == 2
    assert len(json.dumps(payload, separators=(",", ":"))) <= 64 * 1024
    alone = world.decide({"number": 7, "text": "x" * 70_000})
    assert (alone.decision, alone.code) == ("refused", "payload_too_large")


@pytest.mark.parametrize("state", ["the window has passed", "due", "claimed", "canceled"])
def test_after_that_an_event_begins_anew(world: World, state: str) -> None:
    world.listen(coalesce=coalesce())
    runs = Runs(world.cast, world.trigger_id)
    first = world.decide().run_id
    assert first is not None
    world.now += timedelta(seconds=60 if state == "the window has passed" else 61)
    runs.now = world.now
    if state == "claimed":
        runs.claim(first)
    if state == "canceled":
        world.now -= timedelta(seconds=30)
        runs.cancel(first)
    second, third = world.decide(), world.decide()
    assert (second.decision, third.decision) == ("fired", "coalesced")
    assert first != second.run_id == third.run_id


def test_without_a_string_number_or_boolean_at_the_path_nothing_coalesces(world: World) -> None:
    world.listen(coalesce=coalesce())
    bodies: tuple[Any, ...] = ({}, {"number": None}, {"number": [7]}, {"number": {}})
    for body in bodies:
        decisions = [world.decide(body), world.decide(body)]
        assert [each.decision for each in decisions] == ["fired", "fired"], body
        assert Run.objects.get(id=str(decisions[0].run_id)).available_at == NOON
    one = world.decide({"number": 1})
    assert world.decide({"number": 1.0}).run_id == one.run_id
    for value in ("1", True, 0, False, ""):
        assert world.decide({"number": value}).decision == "fired", value


def test_entries_and_triggers_do_not_share_runs(world: World) -> None:
    other = world.cast.add_trigger()
    for trigger_id in (world.trigger_id, other):
        world.listen(trigger_id, coalesce=coalesce())
    for _ in range(2):
        decide(world.event(), now=NOON)
    decided = EventDecision.objects.values_list("trigger_id", "decision")
    assert sorted(decided) == sorted(
        (trigger_id, decision)
        for trigger_id in (world.trigger_id, other)
        for decision in ("fired", "coalesced")
    )


def test_events_at_once_share_one_run_and_none_is_lost(committed_cast: Cast) -> None:
    world = World(committed_cast)
    other = committed_cast.add_trigger()
    for trigger_id in (world.trigger_id, other):
        world.listen(trigger_id, coalesce=coalesce("all"), fields={"nth": "/nth"})
    world.now = database_now()
    events = [world.event({"number": 7, "nth": nth}) for nth in range(8)]

    def deciding(event: Event) -> None:
        with transaction.atomic():
            decide(event)

    at_once(*(partial(deciding, event) for event in events))
    for trigger_id in (world.trigger_id, other):
        run = Run.objects.get(trigger_id=trigger_id)
        payload = world.payload(run.id)
        assert sorted(each["data"]["nth"] for each in payload["events"]) == list(range(8))
        decided = EventDecision.objects.filter(trigger_id=trigger_id, run=run)
        assert sorted(decided.values_list("decision", flat=True)) == ["coalesced"] * 7 + ["fired"]


# --- What it costs


def test_a_filtered_event_costs_the_same_however_many_listen(world: World) -> None:
    def statements() -> int:
        event = world.event()
        with counted() as made:
            decide(event)
        return len(made)

    world.listen(types=["push"])
    one = statements()
    for _ in range(20):
        world.listen(world.cast.add_trigger(), types=["push"])
    assert statements() == one <= 2
    fired = []
    for _ in range(4):
        world.listen(world.cast.add_trigger())
        fired.append(statements())
    assert fired[3] - fired[2] == fired[2] - fired[1] <= 4, "each run costs the same"
