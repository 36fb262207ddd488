"""GET /environments/:envId/audit-log"""

import random
from datetime import timedelta
from urllib.parse import urlencode

import pytest
from django.utils import timezone

from accounts.models import User
from audit.models import AuditEntry
from pipedai.api.tests.test_cursors import walk
from pipedai.events import ACTIONS, SYSTEM, Actor, Event, emit
from pipedai.ids import new_id
from testing.probes.shapes import A_TIME, AN_ID, invalid
from testing.probes.statement_count import counted
from testing.processes.worker_calls import WorkerCalls
from testing.world.cast import TEST_ACTOR
from testing.world.connections import add_connection
from testing.world.runs import Runs


@pytest.fixture
def url(cast):
    return f"/api/v1/environments/{cast.environment.id}/audit-log"


@pytest.fixture
def read(cast, url):
    """Returns a function that lists the entries as the admin sees them, without those from before the test."""
    client = cast.client(cast.admin)
    before = {item["id"] for item in client.get(url, {"limit": 200}).json()["items"]}

    def reading(**query):
        response = client.get(url, query)
        assert response.status_code == 200, response.content
        return [item for item in response.json()["items"] if item["id"] not in before]

    return reading


def act(cast, action="environment.updated", *, target=None, actor=TEST_ACTOR, environment=None):
    """Writes one row and returns the id of its target."""
    target = target or new_id()
    emit(Event(action, actor, environment or cast.environment.id, "environment", target, {}))
    return str(target)


def test_an_entry_says_who_what_on_which_target_and_whence(cast, read):
    client = cast.client(cast.owner)
    client.patch(
        f"/api/v1/environments/{cast.environment.id}",
        {"name": "staging"},
        REMOTE_ADDR="203.0.113.7",
    )
    (entry,) = read()
    assert entry == {
        "id": AN_ID,
        "action": "environment.updated",
        "actor": {"type": "user", "id": str(cast.owner.id), "label": cast.owner.email},
        "targetType": "environment",
        "targetId": str(cast.environment.id),
        "targetName": "staging",
        "metadata": {"name": ["production", "staging"]},
        "ip": "203.0.113.7",
        "requestId": entry["requestId"],
        "createdAt": A_TIME,
    }


def test_the_name_of_a_target_is_kept_as_it_was(cast, read):
    client = cast.client(cast.owner)
    run = client.post(f"/api/v1/triggers/{cast.trigger_id}/run", {}).json()["id"]
    trigger = f"/api/v1/triggers/{cast.add_trigger(name='Old')}"
    client.patch(trigger, {"name": "New"})
    client.delete(trigger)
    connection = f"/api/v1/connections/{add_connection(cast)}"
    name = client.get(connection).json()["name"]
    client.delete(connection)
    client.delete(f"/api/v1/environments/{cast.environment.id}/members/{cast.viewer.id}")
    found = [(each["action"], each["targetName"]) for each in read()]
    assert found[::-1] == [
        ("run.created", "Nightly report"),
        ("trigger.created", "Old"),
        ("trigger.updated", "New"),
        ("trigger.deleted", "New"),
        ("connection.created", name),
        ("connection.deleted", name),
        ("member.removed", None),
    ]
    assert any(each["targetId"] == run for each in read(actorType="user,staff"))


def test_entries_are_filtered_by_who_acted(cast, read):
    worker = Actor("worker", cast.worker.worker_id)
    mine, its = act(cast, actor=Actor("user", cast.owner.id)), act(cast, actor=worker)
    act(cast, actor=SYSTEM)
    targets = lambda **query: [entry["targetId"] for entry in read(**query)]  # noqa: E731
    assert targets(actorId=str(cast.owner.id)) == [mine]
    assert targets(actorType="user,worker") == [its, mine]
    assert targets(actorType="user", actorId=str(worker.id)) == []


def test_the_newest_comes_first(cast, read):
    targets = [act(cast) for _ in range(3)]
    assert [entry["targetId"] for entry in read()] == targets[::-1]


class TestTheLabelOfAnActor:
    def test_is_looked_up_for_each_kind(self, cast, read):
        Runs(cast, cast.trigger_id).queue()
        calls = WorkerCalls(cast.worker)
        run_id = calls.poll().json()["runs"][0]["id"]
        calls.claim(run_id)
        cast.key_client("operator").post(f"/api/v1/triggers/{cast.trigger_id}/run", {})
        act(cast, actor=SYSTEM)
        act(cast, actor=Actor("staff", cast.stranger.id))
        labels = {
            (entry["actor"]["type"], entry["actor"]["label"])
            for entry in read()
            if entry["actor"]["id"] or entry["actor"]["type"] == "system"
        }
        assert labels == {
            ("worker", "host-1"),
            ("api_key", "pwk"),
            ("system", "system"),
            ("staff", cast.stranger.email),
        }

    def test_follows_a_change(self, cast, read):
        act(cast, actor=Actor("user", cast.owner.id))
        User.objects.filter(id=cast.owner.id).update(email="renamed@example.com")
        assert [entry["actor"]["label"] for entry in read()] == ["renamed@example.com"]

    def test_is_null_for_one_that_is_gone(self, cast, read):
        gone = new_id()
        act(cast, actor=Actor("user", gone))
        (entry,) = read()
        assert entry["actor"] == {"type": "user", "id": str(gone), "label": None}


class TestFilters:
    @pytest.fixture
    def three(self, cast, read):
        return {
            action: act(cast, action)
            for action in ("trigger.created", "run.claimed", "run.skipped")
        }

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({"action": "run.claimed"}, ["run.claimed"]),
            ({"actions": "run.claimed"}, ["run.claimed"]),
            ({"actions": "run.claimed,run.skipped"}, ["run.claimed", "run.skipped"]),
            ({"actions": "run.claimed, run.skipped,"}, ["run.claimed", "run.skipped"]),
            ({"actions": ["run.claimed", "run.skipped"]}, ["run.claimed", "run.skipped"]),
            ({"action": "run.skipped", "actions": "run.claimed,run.skipped"}, ["run.skipped"]),
            ({"action": "run.skipped", "actions": "run.claimed"}, []),
            ({"action": "", "actions": ""}, ["run.claimed", "run.skipped", "trigger.created"]),
            ({"unknown": "x"}, ["run.claimed", "run.skipped", "trigger.created"]),
        ],
        ids=str,
    )
    def test_by_action(self, three, read, query, found):
        assert sorted(entry["action"] for entry in read(**query)) == found

    def test_by_target(self, three, read):
        entries = read(targetId=three["run.skipped"])
        assert [entry["action"] for entry in entries] == ["run.skipped"]
        assert read(targetId=str(new_id())) == []

    def test_from_counts_and_to_does_not(self, cast, read):
        act(cast)
        moment = AuditEntry.objects.latest("created_at").created_at
        one = timedelta(microseconds=1)
        spell = lambda time: time.isoformat()  # noqa: E731
        assert len(read(**{"from": spell(moment)})) == 1
        assert len(read(**{"from": spell(moment + one)})) == 0
        assert len(read(to=spell(moment))) == 0
        assert len(read(to=spell(moment + one))) == 1

    def test_all_of_them_must_hold(self, three, read):
        now = timezone.now()
        query = {"targetId": three["run.skipped"], "to": (now + timedelta(hours=1)).isoformat()}
        assert len(read(**query)) == 1
        assert read(**query, action="run.claimed") == []

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("action", "run.exploded"),
            ("actions", "run.claimed,nonsense"),
            ("targetId", "x"),
            ("from", "yesterday"),
            ("to", "2026-13-01"),
            ("limit", "0"),
            ("cursor", "x"),
        ],
    )
    def test_a_malformed_one_is_a_field_error(self, cast, url, name, value):
        response = cast.client(cast.admin).get(url, {name: value})
        assert response.status_code == 400
        messages = response.json()["details"]["fieldErrors"].get(name)
        assert response.json() == invalid({name: messages})

    def test_a_cursor_goes_with_its_filters(self, cast, url):
        client = cast.client(cast.admin)
        for _ in range(3):
            act(cast, "run.skipped")
        page = client.get(url, {"action": "run.skipped", "limit": 1}).json()
        again = {"cursor": page["nextCursor"]}
        assert client.get(url, {"action": "run.skipped", **again}).status_code == 200
        assert client.get(url, again).status_code == 400
        assert client.get(url, {"actions": "run.skipped", **again}).status_code == 400


class TestSeveralActions:
    """A filter by several actions merges the pages of each action."""

    ACTIONS = ("run.skipped", "run.claimed", "run.started", "trigger.created")

    @pytest.fixture
    def many(self, cast):
        """Writes entries of four actions, some of them with the same time."""
        dice = random.Random(11)
        for _ in range(12):
            emit(
                *(
                    Event(
                        dice.choice(self.ACTIONS), TEST_ACTOR, cast.environment.id, "run", new_id()
                    )
                    for _ in range(dice.randrange(1, 7))
                )
            )

    @pytest.mark.parametrize(
        "query",
        [
            {"actions": "run.skipped,run.claimed"},
            {
                "action": ["run.skipped", "run.started"],
                "actions": "run.claimed,run.skipped,run.started",
            },
            {"actions": ",".join(sorted(ACTIONS))},
        ],
        ids=lambda query: f"{len(query['actions'].split(','))} actions",
    )
    def test_follow_each_other_in_one_order(self, cast, url, many, query):
        kept = set(query["actions"].split(",")) & set(query.get("action", ACTIONS))
        rows = AuditEntry.objects.filter(environment_id=cast.environment.id, action__in=kept)
        expected = [str(row.id) for row in rows.order_by("-created_at", "-id")]
        assert len(expected) > 9
        for limit in (2, 5, 200):
            pages = walk(cast.client(cast.admin), f"{url}?{urlencode(query, doseq=True)}", limit)
            assert pages == [
                expected[first : first + limit] for first in range(0, len(expected), limit)
            ]

    def test_are_read_by_one_statement(self, cast, url, many):
        client = cast.client(cast.admin)
        with counted() as one:
            client.get(url, {"actions": "run.skipped"})
        with counted() as several:
            client.get(url, {"actions": "run.skipped,run.claimed,trigger.created"})
        assert len(several) == len(one)


def test_nothing_of_another_environment_nor_of_none_is_shown(cast, read):
    act(cast, environment=cast.strange_environment.id)
    emit(Event("user.logged-in", TEST_ACTOR, None, "user", cast.owner.id))
    assert read() == []


def test_reading_it_is_not_audited(cast, read):
    read()
    assert read() == []
