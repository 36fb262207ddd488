"""POST /environments/:envId/triggers"""

from typing import Any

import pytest

from testing.probes.audited import audited
from testing.probes.shapes import A_TIME, invalid
from testing.processes.worker_calls import WorkerCalls
from testing.world.cases import cases
from testing.world.cast import TEST_ACTOR
from testing.world.plain_fields import bounds_taken_by, plain_fields, refused_by
from testing.world.trigger_values import (
    SAMPLES,
    SECRET_SAMPLES,
    add_sample_rows,
    trigger_shown,
    trigger_values,
)
from triggers.models import Trigger, TriggerRevision
from triggers.serializers import TriggerBody
from triggers.services import TRIGGERS
from workers.models import Worker
from workspaces.services import create_environment, create_workspace

REQUIRED = {"name": "Nightly", "prompt": "Report.", "mcpUrl": "https://mcp.example/v1"}


@pytest.fixture
def create(cast):
    """Returns a function that creates a trigger as the owner, from a minimal body with changes."""
    url = f"/api/v1/environments/{cast.environment.id}/triggers"
    client = cast.client(cast.owner)

    def creating(*without, **changes):
        body = {**REQUIRED, **changes}
        return client.post(url, {name: body[name] for name in body if name not in without})

    return creating


def trigger(cast, **changes):
    return trigger_shown(cast.environment.id, **{"name": "Nightly", **changes})


def test_three_fields_are_enough(cast, create):
    response = create()
    assert response.status_code == 201
    assert response.json() == trigger(cast), (
        'see trigger_shown in testing/world/trigger_values.py, and CONTRIBUTING.md, "A field of a trigger"'
    )
    assert cast.client(cast.viewer).get(f"/api/v1/triggers/{response.json()['id']}").json() == (
        response.json()
    )


def test_everything_may_be_said(cast, create):
    add_sample_rows(cast.environment)
    said = {**SAMPLES, "workerId": str(cast.worker.worker_id), "enabled": True}
    secrets = {field: secret for field, (secret, _) in SECRET_SAMPLES.items()}
    assert {*said, *secrets} == set(TriggerBody().fields), (
        'SAMPLES in testing/world/trigger_values.py differs: see CONTRIBUTING.md, "A field of a trigger"'
    )
    response = create(**said, **secrets)
    assert response.status_code == 201
    assert response.json() == trigger(
        cast,
        **said,
        nextRunAt=A_TIME,
        hasMcpHeaders=True,
        mcpHeaderNames=["x-api-key"],
        hasWebhookSecret=True,
    )


def test_null_is_as_good_as_nothing(cast, create):
    response = create(
        workerId=None,
        model=None,
        schedule=None,
        webhookUrl=None,
        mcpHeaders=None,
        webhookSecret=None,
        outputSchema=None,
    )
    assert response.status_code == 201
    assert response.json() == trigger(cast)


def test_no_headers_are_as_good_as_nothing(create):
    assert create(mcpHeaders={}).json()["hasMcpHeaders"] is False


def test_the_next_run_is_told_of_an_enabled_trigger_with_a_schedule(create):
    assert create(schedule="* * * * *").json()["nextRunAt"] == A_TIME
    assert create(schedule="* * * * *", enabled=False).json()["nextRunAt"] is None
    assert create(enabled=True).json()["nextRunAt"] is None


def test_blanks_around_words_go_but_a_prompt_is_kept_as_it_is(create):
    body = create(name=" Nightly ", prompt=" Report.\n", schedule=" 0  9 * *\t* ").json()
    assert body["name"] == "Nightly"
    assert body["prompt"] == " Report.\n"
    assert body["schedule"] == "0 9 * * *"


def test_the_prompt_and_the_model_make_the_first_revision(create):
    row = Trigger.objects.get(id=create(model="m").json()["id"])
    revision = TriggerRevision.objects.get(trigger=row)
    assert (row.revision_id, revision.prompt, revision.model) == (revision.id, "Report.", "m")


def test_an_environment_has_only_so_many(create, ceilings):
    ceilings["triggers"] = 2  # the cast has one already
    assert create().status_code == 201
    response = create()
    assert response.status_code == 409
    assert response.json() == {
        "error": "The environment has 2 triggers, as many as it may.",
        "code": "ceiling_reached",
        "ceiling": "triggers",
    }


def test_the_workspaces_of_one_creator_have_only_so_many(cast, create, ceilings):
    """The limit counts the triggers in all environments of the creator, whoever made the triggers.

    It does not count deleted triggers, or those in the workspaces of other creators.
    """
    ceilings["triggersOfCreator"] = 3  # the cast has one already
    workspace = create_workspace(name="other", user_id=cast.owner.id, actor=TEST_ACTOR)
    other = create_environment(
        workspace_id=workspace.id, name="other", user_id=cast.owner.id, actor=TEST_ACTOR
    )

    def one_in(environment):
        return TRIGGERS.create(
            environment_id=environment.id, actor=TEST_ACTOR, values=trigger_values()
        )

    one_in(other), one_in(cast.strange_environment)
    last = one_in(other)
    with audited() as rows:
        response = create()
    assert response.status_code == 409
    assert response.json() == {
        "error": "The workspaces of this one's creator have 3 triggers, as many as they may.",
        "code": "ceiling_reached",
        "ceiling": "triggersOfCreator",
    }
    assert rows == []
    TRIGGERS.delete(last, actor=TEST_ACTOR)
    assert create().status_code == 201


def test_a_webhook_needs_https_in_production(create, settings):
    assert create(webhookUrl="http://hooks.example/").status_code == 201
    settings.PRODUCTION = True
    response = create(webhookUrl="http://hooks.example/")
    assert response.json() == invalid({"webhookUrl": ["Must be an https URL with a host."]})
    assert create(mcpUrl="http://mcp.example/").status_code == 201


STRING = "Must be a string."
NULL, BLANK = "This field may not be null.", "This field may not be blank."
UUID = "Must be a valid UUID."
OBJECT = "Must be a JSON object."
TIME = "Datetime has wrong format. Use one of these formats instead: YYYY-MM-DDThh:mm[:ss[.uuuuuu]][+HH:MM|-HH:MM|Z]."
AHEAD = "Must be in the future, and at most 366 days ahead."


def longer_than(count):
    return f"Ensure this field has no more than {count} characters."


# What each field refuses, and with which message. test_mcp_headers.py has what `mcpHeaders` refuses.
SLUG = "Must be lower-case letters, digits, dots, hyphens and underscores, and begin and end with a letter or digit."
RULES = "Must be a list of rules."
_RULE: dict[str, Any] = {
    "tools": "*",
    "when": "always",
    "approverRole": "operator",
    "notRequester": False,
    "expiresAfterSeconds": 60,
}

BAD: dict[str, list[tuple[Any, str]]] = {
    **{name: refused_by(field) for name, field in plain_fields(TriggerBody).items()},
    "key": [("", BLANK), (5, STRING), ("x" * 65, longer_than(64)), ("Nightly report", SLUG), ("-x", SLUG)],
    "managedBy": [("", BLANK), (5, STRING), ("x" * 201, longer_than(200))],
    "prompt": [
        (None, NULL), ("", BLANK), (5, STRING), (["x"], STRING),
        ("x" * (256 * 1024 + 1), "Must not be longer than 256 KiB."),
        ("é" * (128 * 1024 + 1), "Must not be longer than 256 KiB."),
    ],
    "schedule": [
        ("", BLANK), (5, STRING), ("x" * 201, longer_than(200)),
        ("* * * *", "Needs the 5 fields minute, hour, day of month, month, day of week; it has 4."),
    ],
    "runOnceAt": [
        (5, TIME), ("", TIME), ("tomorrow", TIME), (True, TIME), ([], TIME),
        ("2020-01-01T00:00:00Z", AHEAD), ("9999-12-31T23:59:59.999Z", AHEAD),
    ],
    "on": [  # events/tests/test_listening.py has more
        (None, NULL), ("x", 'Expected a list of items but got type "str".'),
        ([{}] * 11, "Must not have more than 10 entries."),
    ],
    "workerId": [("x", UUID), ("", UUID), (True, UUID), (5, UUID), ([], UUID), (1.5, UUID)],
    "connectionId": [("x", UUID), ("", UUID), (True, UUID), (5, UUID), ([], UUID)],
    "poolId": [("x", UUID), ("", UUID), (True, UUID), (5, UUID), ([], UUID)],
    "approvals": [("*", RULES), ({}, RULES), ([_RULE] * 11, "Must not have more than 10 rules.")],
    "before": [  # runs/tests/test_looks.py has more
        ("x", "Invalid data. Expected a dictionary, but got str."),
        ([], "Invalid data. Expected a dictionary, but got list."),
    ],
    "outputSchema": [  # test_output_schemas.py has more
        ("{}", OBJECT), (True, OBJECT), ([], OBJECT), (5, OBJECT),
        ({"description": "x" * 32751}, "Must not be longer than 32 KiB."),
        ({"type": 5}, "Not a JSON Schema 2020-12: at /type: 5 is not valid under any of the given schemas"),
        ({"pattern": "("}, "The pattern ( is no regular expression."),
        (
            {"$ref": "https://schemas.example/s"},
            "The reference https://schemas.example/s names no place in this schema; others are never loaded.",
        ),
    ],
}  # fmt: skip


def test_a_bad_value_is_named(create):
    fields = set(TriggerBody().fields) - {"mcpHeaders"}
    for field in fields:
        assert field in BAD, (
            f'add what {field} refuses to BAD of this file (CONTRIBUTING.md, "A field of a trigger")'
        )
    # Each request has a bad value of every field that has one left, as all that is wrong is named at once.
    for number in range(max(map(len, BAD.values()))):
        bad = {field: BAD[field][number] for field in fields if number < len(BAD[field])}
        response = create(**{field: value for field, (value, _) in bad.items()})
        assert response.status_code == 400
        named = {field: [message] for field, (_, message) in bad.items()}
        assert response.json() == invalid(named), bad
    assert Trigger.objects.count() == 1  # only the cast's


def test_name_and_prompt_are_required(create):
    for name in ("name", "prompt"):
        assert create(name).json() == invalid({name: ["This field is required."]})


TAKEN: dict[str, list[Any]] = {
    **{name: bounds_taken_by(field) for name, field in plain_fields(TriggerBody).items()},
    "prompt": ["x" * (256 * 1024), "é" * (128 * 1024), " "],
    "schedule": [f"{','.join(['1'] * 96)} * * * *"],
    "outputSchema": [{}, {"description": "x" * (32 * 1024 - 18)}],
    "approvals": [[_RULE] * 10, [_RULE | {"tools": ["x" * 200], "expiresAfterSeconds": 604_800}]],
}


def test_a_rule_of_approvals_has_defaults_and_none_are_null(create):
    assert create(approvals=[{"tools": ["b", "a", "b"]}]).json()["approvals"] == [
        {
            "tools": ["b", "a"],
            "when": "always",
            "approverRole": "admin",
            "notRequester": False,
            "expiresAfterSeconds": 86_400,
        }
    ]
    assert create(approvals=[]).json()["approvals"] is None


def test_a_change_replaces_the_rules_as_a_whole(create, cast):
    made = create(approvals=[_RULE]).json()
    url, client = f"/api/v1/triggers/{made['id']}", cast.client(cast.admin)
    changed = client.patch(url, {"approvals": [{"tools": "*"}]})
    assert changed.json()["approvals"][0]["expiresAfterSeconds"] == 86_400
    refused = client.patch(url, {"approvals": [{"when": "always"}]}).json()["details"]
    assert refused["fieldErrors"]["approvals.0.tools"] == ["This field is required."]


@cases(
    "change",
    [
        {"tools": []}, {"tools": "all"}, {"tools": ["x"] * 51}, {"when": "never"}, {"approverRole": "viewer"},
        {"expiresAfterSeconds": 59}, {"other": 1},
    ], undone=True)  # fmt: skip
def test_a_bad_rule_is_named_by_its_place(create, change):
    (field,) = change
    answer = create(approvals=[_RULE, _RULE | change])
    assert answer.status_code == 400
    assert f"approvals.1.{field}" in answer.json()["details"]["fieldErrors"]


# The watch over secrets would find this one in the long texts of the others.
@pytest.mark.parametrize("fields", [TAKEN.keys() - {"webhookSecret"}, {"webhookSecret"}])
def test_values_at_their_bounds_are_taken(create, fields):
    for number in range(max(len(TAKEN[field]) for field in fields)):
        body = {field: TAKEN[field][number] for field in fields if number < len(TAKEN[field])}
        response = create(**body)
        assert response.status_code == 201, response.json()
        made = response.json()
        assert {field: made.get(field, value) for field, value in body.items()} == body


def test_a_whole_number_may_have_a_point(create):
    assert create(maxRetries=3.0).json()["maxRetries"] == 3


def test_a_schedule_that_never_comes_due_in_its_zone_is_refused(create):
    response = create(schedule="*/30 2 25-31 3 */7", timezone="Europe/Berlin")
    assert response.json() == invalid(
        {"schedule": ["It never comes due: clocks go forward over each of its times."]}
    )


def test_all_that_is_wrong_is_named_at_once(create):
    response = create("name", maxRetries=99, enabled="yes", enbaled=True)
    assert set(response.json()["details"]["fieldErrors"]) == {
        "name",
        "maxRetries",
        "enabled",
        "enbaled",
    }


class TestTheWorker:
    def test_it_is_one_of_the_environment(self, cast, create):
        worker_id = str(cast.worker.worker_id)
        assert create(workerId=worker_id).json()["workerId"] == worker_id

    def test_a_deregistered_one_is_missing(self, cast, create):
        Worker.objects.update(deleted_at="2026-01-01T00:00:00Z", token_digest=None)
        response = create(workerId=str(cast.worker.worker_id))
        assert response.json() == invalid({"workerId": ["No such machine in this environment."]})


@cases(
    "name",
    ["id", "environmentId", "hasMcpHeaders", "nextRunAt", "lastRun", "createdAt", "mcp_url"],
    undone=True,
)
def test_what_is_only_read_cannot_be_written(create, name):
    assert create(**{name: "x"}).json() == invalid({name: ["Unknown field."]})


def test_without_mcp_server_an_agent_has_no_tools_of_one(cast, create):
    worker = str(cast.worker.worker_id)
    for made in (create("mcpUrl", workerId=worker), create(mcpUrl=None, workerId=worker)):
        assert made.status_code == 201
        assert made.json()["mcpUrl"] is None
    refused = create("mcpUrl", mcpHeaders={"X-Key": "planted-secret"})
    problem = "There is no MCP server to send them to: give mcpUrl."
    assert refused.json() == invalid({"mcpHeaders": [problem]})
    client = cast.client(cast.owner)
    path = f"/api/v1/triggers/{made.json()['id']}"
    client.post(f"{path}/run", {}, content_type="application/json")
    (run,) = WorkerCalls(cast.worker).poll().json()["runs"]
    assert (run["mcpUrl"], run["mcpHeaders"]) == (None, {})
    given = {"mcpUrl": "https://mcp.example/", "mcpHeaders": {"X-Key": "planted-secret"}}
    assert client.patch(path, given).json()["hasMcpHeaders"]
    taken = client.patch(path, {"mcpUrl": None}).json()
    assert (taken["mcpUrl"], taken["hasMcpHeaders"]) == (None, False)
