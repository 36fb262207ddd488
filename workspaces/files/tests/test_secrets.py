"""Secrets in files: none is shown, guessed, lost by mistake, or led to a server that nobody accepted."""

from typing import Any

import pytest

from testing.world.connections import add_connection
from testing.world.mails import MAIL_SERVER, prove
from triggers.models import EventSource, Trigger
from workers.models import Pool
from workspaces.files.kinds import kinds
from workspaces.files.tests.test_files import actions, apply, environment, plan

NAMED = {"Authorization": {"secret": "TICKETS"}}
TRIGGER: dict[str, Any] = {
    "kind": "trigger",
    "key": "tickets",
    "name": "Tickets",
    "prompt": "Look.",
    "mcpUrl": "https://tickets.example/mcp",
    "mcpHeaders": NAMED,
}
VALUES = {"TICKETS": "Bearer planted-in-a-file"}
ACCEPTED = ["https://tickets.example"]
CHANNEL = {"kind": "channel", "key": "tickets", "name": "Tickets", "type": "webhook"}
# A channel's URL is a secret that stands in these files.
CLEAR = {
    "trigger": [],
    "channel": ["url is in the file in clear. Write it as a secret's name."],
}


def change_of(answer):
    assert answer.status_code == 200, answer.content
    (change,) = answer.json()["changes"]
    return change


def headers_of(cast):
    (kind,) = (kind for kind in kinds() if kind.name == "trigger")
    (row,) = (row for row in kind.rows(cast.environment.id) if row["key"] == "tickets")
    return kind.secrets["mcpHeaders"].opened(row)


@pytest.fixture
def applied(cast):
    answer = apply(cast, [TRIGGER], secrets=VALUES, acceptOrigins=ACCEPTED)
    assert change_of(answer)["diff"]["mcpHeaders"] == [None, "set"]
    return cast


def test_a_secret_is_written_and_shown_as_set(applied):
    assert headers_of(applied) == {"Authorization": VALUES["TICKETS"]}


def test_an_equal_value_is_no_change_and_another_one_is(applied):
    assert change_of(plan(applied, [TRIGGER], secrets=VALUES))["action"] == "none"
    other = {"TICKETS": "Bearer planted-anew"}
    answer = apply(applied, [TRIGGER], secrets=other)
    assert change_of(answer)["diff"] == {"mcpHeaders": ["set", "set"]}
    assert headers_of(applied) == {"Authorization": other["TICKETS"]}


def test_without_a_value_it_stays_and_null_removes_it(applied):
    answer = apply(applied, [{**TRIGGER, "prompt": "Look again."}])
    assert list(change_of(answer)["diff"]) == ["prompt"]
    assert headers_of(applied) == {"Authorization": VALUES["TICKETS"]}
    answer = apply(applied, [{**TRIGGER, "mcpHeaders": None}])
    assert change_of(answer)["diff"]["mcpHeaders"] == ["set", None]
    assert Trigger.objects.get(key="tickets").mcp_headers is None


def test_a_viewers_plan_says_the_same_of_right_and_wrong_guesses(applied):
    """A viewer may put a guess into `secrets`, or into the file in clear."""
    told = []
    for guess in (VALUES["TICKETS"], "Bearer wrong-guess"):
        clear = {**TRIGGER, "mcpHeaders": {"Authorization": guess}}
        for resource, values in ((TRIGGER, {"TICKETS": guess}), (clear, {})):
            told.append(change_of(plan(applied, [resource], applied.viewer, secrets=values)))
    assert told[:2] == told[2:]
    assert told[0]["action"] == "none"


def test_a_viewer_is_not_told_whether_a_row_that_they_may_not_read_is_as_they_guess(cast, settings):
    settings.EMAIL_URL = MAIL_SERVER
    prove(cast.admin)
    channel = {"kind": "channel", "key": "alarms", "name": "Alarms", "type": "email"}
    right, wrong = ({**channel, "emails": [f"{name}@acme.example"]} for name in ("right", "wrong"))
    apply(cast, [right])
    told = [change_of(plan(cast, [guess], cast.viewer)) for guess in (right, wrong)]
    assert told[0] == told[1]
    assert change_of(plan(cast, [right]))["action"] == "none"


def test_no_warning_tells_a_viewer_whether_such_a_row_is_as_they_guess(cast):
    """A secret that the row lacks is warned of only if something is to be changed."""
    channel = {**CHANNEL, "events": [], "url": {"secret": "HOOK"}}
    apply(cast, [channel], secrets={"HOOK": "https://one.example/planted-hook"})
    right = {**channel, "secret": {"secret": "SIGNING"}}
    told = [
        change_of(plan(cast, [guess], cast.viewer))
        for guess in (right, {**right, "name": "Another"})
    ]
    assert told[0] == told[1]
    assert change_of(plan(cast, [{**right, "name": "Another"}]))["warnings"] != []


@pytest.mark.parametrize("value", ["[planted, but no JSON", '{"planted": "as text"}'])
def test_the_secret_of_a_text_may_look_like_json(cast, value):
    signed = {**TRIGGER, "mcpHeaders": None, "webhookSecret": {"secret": "SIGNING"}}
    assert actions(apply(cast, [signed], secrets={"SIGNING": value})) == {"tickets": "create"}


def test_a_new_origin_is_refused_unless_it_is_accepted(applied):
    moved = {**TRIGGER, "mcpUrl": "https://evil.example/mcp"}
    assert "accept" in change_of(plan(applied, [moved], secrets=VALUES))["warnings"][0]
    accepting = {"secrets": VALUES, "acceptOrigins": ["https://evil.example"]}
    assert change_of(plan(applied, [moved], **accepting))["warnings"] == []
    refused = apply(applied, [moved], secrets=VALUES)
    assert (refused.status_code, refused.json()["code"]) == (409, "new_origin")
    assert "https://evil.example" in refused.json()["error"]


def test_a_secret_without_a_value_is_not_lost_by_a_move_unless_its_new_origin_is_accepted(applied):
    moved = {**TRIGGER, "mcpUrl": "https://evil.example/mcp?of=us"}
    (said,) = change_of(plan(applied, [moved]))["warnings"]
    assert "would be lost" in said
    assert moved["mcpUrl"] in said
    refused = apply(applied, [moved])
    assert (refused.status_code, refused.json()["code"]) == (409, "new_origin")
    assert refused.json()["error"] == f"trigger tickets: {said}"
    assert headers_of(applied) == {"Authorization": VALUES["TICKETS"]}
    answer = apply(applied, [moved], acceptOrigins=["https://evil.example"])
    assert "is lost" in change_of(answer)["warnings"][0]
    assert change_of(answer)["diff"]["mcpHeaders"][1] is None
    assert Trigger.objects.get(key="tickets").mcp_headers is None


@pytest.mark.parametrize(
    ("kind", "url", "secret"),
    [("trigger", "webhookUrl", "webhookSecret"), ("channel", "url", "secret")],
)
def test_what_signs_is_not_lost_by_a_move_either(cast, kind, url, secret):
    row = {**TRIGGER, "mcpHeaders": None} if kind == "trigger" else {**CHANNEL, "events": []}
    named = {secret: {"secret": "SIGNING"}}
    here = {**row, url: "https://one.example/planted-hook", **named}
    values = {"SIGNING": "planted-signing-secret"}
    apply(cast, [here], secrets=values)
    assert change_of(plan(cast, [here], secrets=values))["action"] == "none"
    same = {**here, url: "https://one.example/planted-other"}
    assert change_of(apply(cast, [same]))["warnings"] == CLEAR[kind]
    moved = {**here, url: "https://two.example/planted-hook"}
    refused = apply(cast, [moved])
    assert (refused.status_code, refused.json()["code"]) == (409, "new_origin")
    assert "https://two.example" in refused.json()["error"]
    # Who may not read channels does not learn where one goes.
    warned = change_of(plan(cast, [moved], cast.viewer))["warnings"]
    assert any("would be lost" in each for each in warned) is (kind == "trigger")
    # What signs goes nowhere, so that only its loss needs consent.
    assert change_of(apply(cast, [moved], secrets=values))["warnings"] == CLEAR[kind]


def test_an_origin_counts_only_for_the_secret_that_goes_there(applied):
    """Hosts with many tenants have them behind one origin."""
    other = {**TRIGGER, "key": "other", "mcpUrl": "https://tickets.example/elsewhere?for=them"}
    other["mcpHeaders"] = {"Authorization": {"secret": "OTHER"}}
    values = {**VALUES, "OTHER": "Bearer planted-for-others"}
    warned = plan(applied, [TRIGGER, other], secrets=values).json()["changes"][1]["warnings"]
    assert len(warned) == 1
    assert other["mcpUrl"] in warned[0]
    refused = apply(applied, [TRIGGER, other], secrets=values)
    assert (refused.status_code, refused.json()["code"]) == (409, "new_origin")
    # The secret that goes there may have more triggers, and a new value.
    again = {**other, "mcpHeaders": TRIGGER["mcpHeaders"]}
    answer = apply(applied, [TRIGGER, again], secrets=values)
    assert [each["warnings"] for each in answer.json()["changes"]] == [[], []]
    anew = {"TICKETS": "Bearer planted-anew"}
    assert actions(apply(applied, [TRIGGER], secrets=anew))["tickets"] == "update"


def test_headers_beside_a_connection_go_where_the_connections_go_only_if_accepted(applied):
    add_connection(applied, key="issues", mcp_url="https://issues.example/mcp")
    resource = {name: value for name, value in TRIGGER.items() if name != "mcpUrl"}
    beside = {**resource, "connection": "issues", "mcpHeaders": {"x-key": {"secret": "TICKETS"}}}
    refused = apply(applied, [beside], secrets=VALUES)
    assert (refused.status_code, refused.json()["code"]) == (409, "new_origin")
    accepted = {"secrets": VALUES, "acceptOrigins": ["https://issues.example"]}
    assert actions(apply(applied, [beside], **accepted)) == {"tickets": "update"}


def test_a_row_that_needs_a_secret_is_planned_without_and_not_applied(cast):
    connection = {
        "kind": "connection",
        "key": "issues",
        "name": "Issues",
        "mcpUrl": "https://tickets.example/mcp",
        "grant": "headers",
        "headers": {"secret": "ISSUES"},
    }
    change = change_of(plan(cast, [connection], cast.viewer))
    assert (change["action"], change["warnings"][0]) == ("create", "headers has no value yet.")
    refused = apply(cast, [connection])
    assert refused.json()["details"]["fieldErrors"] == {
        "connection issues.headers": ["Its secret has no value."]
    }
    whole = {"ISSUES": '{"Authorization": "Bearer planted-as-json"}'}
    answer = apply(cast, [connection], secrets=whole, acceptOrigins=ACCEPTED)
    assert actions(answer) == {"issues": "create"}
    assert "planted" not in answer.content.decode()


def test_a_secret_that_a_new_row_needs_may_be_left_out_later(cast):
    source = {"kind": "source", "key": "github", "name": "GitHub", "scheme": "github"}
    answer = plan(cast, [source])
    assert answer.json()["details"]["fieldErrors"] == {
        "source github.secrets": ["This field is required."]
    }
    apply(cast, [{**source, "secrets": ["planted-in-a-file-of-sources"]}])
    before = EventSource.objects.get(key="github").secrets
    change = change_of(apply(cast, [{**source, "name": "Our repository"}]))
    assert change["diff"] == {"name": ["GitHub", "Our repository"]}
    assert EventSource.objects.get(key="github").secrets == before


def test_a_secret_in_clear_is_warned_of_and_shown_nowhere(cast):
    clear = {**TRIGGER, "mcpHeaders": {"Authorization": "Bearer planted-in-clear"}}
    answer = apply(cast, [clear], acceptOrigins=ACCEPTED)
    assert "in the file in clear" in change_of(answer)["warnings"][0]
    exported = cast.client(cast.viewer).get(f"{environment(cast)}/export")
    assert "planted" not in answer.content.decode() + exported.content.decode()


def test_another_tenants_keys_and_ids_are_nobodys(cast):
    strange = Pool.objects.create(
        environment=cast.strange_environment, key="theirs", name="Theirs", managed_by="acme"
    )
    for given, field in (({"pool": "theirs"}, "pool"), ({"poolId": str(strange.id)}, "poolId")):
        answer = plan(cast, [{**TRIGGER, **given}])
        assert list(answer.json()["details"]["fieldErrors"]) == [f"trigger tickets.{field}"]
    answer = apply(cast, [{"kind": "pool", "key": "theirs", "name": "Ours"}], prune=True)
    assert actions(answer) == {"theirs": "create"}
    strange.refresh_from_db()
    assert (strange.name, strange.deleted_at) == ("Theirs", None)
    for path in ("plan", "apply", "export"):
        url = f"{environment(cast)}/{path}"
        body = {"managedBy": "acme", "resources": [], "digest": "0" * 64}
        client = cast.client(cast.stranger)
        answer = client.get(url) if path == "export" else client.post(url, body)
        assert answer.status_code == 404
