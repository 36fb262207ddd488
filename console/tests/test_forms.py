"""What people type becomes the JSON of the body's types, and what the API says comes back to its field."""

import re
from datetime import UTC, date, datetime, timedelta

import pytest
from django.template.loader import render_to_string

from console.asking import body_of
from console.forms import Form, Look, values_of
from console.pages import midnight
from console.tests.visits import HOME, visitor
from notices.models import Channel
from triggers.states import Scheme
from workspaces.connections.models import Connection

LOOKS = {
    "name": Look(),
    "prompt": Look(kind="area"),
    "mcpUrl": Look(),
    "mcpHeaders": Look(kind="headers"),
    "model": Look(),
    "maxRetries": Look(),
    "alertAfterFailures": Look(),
    "maxCostUsd": Look(),
    "enabled": Look(),
    "overlapPolicy": Look(),
    "outputSchema": Look(),
    "description": Look(),
}
TYPED = {"name": "Report", "prompt": "One\r\ntwo", "mcpUrl": "https://mcp.example.com"}


@pytest.fixture
def sent(rf, monkeypatch):
    """Returns a function that sends a form, and returns the form and the body that the API would get."""
    bodies = []
    monkeypatch.setattr("console.forms.ask", lambda *_, body, **__: bodies.append(body))

    def send(typed, method="POST"):
        ids = "00000000-0000-0000-0000-000000000000"
        path = f"triggers/{ids}" if method == "PATCH" else f"environments/{ids}/triggers"
        form = Form(method, path, LOOKS)
        form.send(rf.post("/console/x", typed, headers=HOME))
        return form, bodies[-1] if bodies else None

    return send


def test_each_type_of_field_has_its_json(sent):
    _, body = sent(
        {
            **TYPED,
            "mcpHeaders.name": ["Authorization", "", "X-Team"],
            "mcpHeaders.value": ["Bearer a:b", "", " blue "],
            "maxRetries": "2",
            "alertAfterFailures": "",
            "maxCostUsd": "0.50",
            "enabled": "true",
            "overlapPolicy": "skip",
            "outputSchema": '{"type": "object"}',
            "description": "",
        }
    )
    assert body == {
        "key": None,
        "name": "Report",
        "prompt": "One\ntwo",
        "mcpUrl": "https://mcp.example.com",
        "mcpHeaders": {"Authorization": "Bearer a:b", "X-Team": "blue"},
        "model": None,
        "maxRetries": 2,
        "alertAfterFailures": None,
        "maxCostUsd": "0.50",
        "enabled": True,
        "overlapPolicy": "skip",
        "outputSchema": {"type": "object"},
        "description": "",
    }


def test_a_list_is_lines_or_boxes_to_check(rf, monkeypatch):
    bodies = []
    monkeypatch.setattr("console.forms.ask", lambda *_, body, **__: bodies.append(body))
    path = "environments/00000000-0000-0000-0000-000000000000/api-keys"
    for choices in ((), (("a", "Machines"), ("b", "More"))):
        form = Form("POST", path, {"poolIds": Look(choices=choices)})
        page = render_to_string("console/fields.html", {"form": form})
        assert page.count('type="checkbox"') == len(choices)
        typed = {"poolIds": ["a", "b"] if choices else "a\r\nb"}
        form.send(rf.post("/console/x", typed, headers=HOME))
        assert bodies.pop() == {"poolIds": ["a", "b"]}
        page = render_to_string("console/fields.html", {"form": form})
        assert page.count(" checked") == len(choices)
        assert choices or ">\na\nb</textarea>" in page


def test_a_secret_that_is_left_empty_stays_and_what_is_no_number_goes_to_the_api(sent):
    _, body = sent({**TYPED, "maxRetries": "two"}, method="PATCH")
    assert "mcpHeaders" not in body
    assert body["maxRetries"] == "two"
    assert body["enabled"] is False


@pytest.mark.parametrize(
    "wrong",
    [
        {"outputSchema": "{"},
        {"outputSchema": "[" * 99_999},
        {"mcpHeaders.name": "", "mcpHeaders.value": "Bearer x"},
    ],
)
def test_what_is_no_json_is_said_at_its_field_and_not_sent(sent, wrong):
    form, body = sent({**TYPED, **wrong})
    assert body is None
    assert [each.name for each in form.wrong] == [next(iter(wrong)).partition(".")[0]]
    assert form.wrong[0].focused
    assert form.status == 400


def test_what_files_manage_says_so_in_its_form_and_has_its_key_there():
    values = {"name": "Report", "key": "report", "managedBy": "acme/agents"}
    path = "triggers/00000000-0000-0000-0000-000000000000"
    form = Form("PATCH", path, {"name": Look()}, values=values)
    assert [(field.name, field.value) for field in form.fields][-1] == ("key", "report")
    shown = render_to_string("console/fields.html", {"form": form})
    assert "Managed by acme/agents: the next apply undoes what is changed here." in shown


def test_a_day_begins_in_utc_whatever_the_clocks_of_a_zone_do():
    spring, autumn = date(2026, 3, 29), date(2026, 10, 25)
    for day in (spring, autumn):
        assert midnight(day) == datetime(day.year, day.month, day.day, tzinfo=UTC)
        assert midnight(day + timedelta(days=1)) - midnight(day) == timedelta(hours=24)


# The pages on which each kind of row is made.
NEW = {
    "triggers": ["triggers/new"],
    "pools": ["pools/new"],
    "budgets": ["budgets/new"],
    "channels": [f"settings/channels/new?kind={each}" for each in Channel.Kind.values],
    "sources": [f"settings/sources/new?scheme={each}" for each in Scheme.values],
    "connections": [f"connections/new?grant={each}" for each in Connection.Grant.values],
}


def test_each_field_of_a_body_is_in_a_form(stage):
    environment, admin = stage.cast.environment.id, visitor(stage.cast.admin)
    for noun, pages in NEW.items():
        shown = {"managedBy"}  # Only files set it.
        for page in pages:
            text = admin.get(f"/console/environments/{environment}/{page}").content.decode()
            shown |= set(re.findall(r'name="(?:add" value=")?(\w+)', text))
        body = body_of("POST", f"environments/{environment}/{noun}")
        assert set(body().fields) - shown == set(), f"no form of {noun} has these: add a Look"


def test_a_field_says_itself_how_a_form_shows_it():
    form = Form(
        "POST", "environments/00000000-0000-0000-0000-000000000000/triggers", {}, complete=True
    )
    fields = {each.name: each for each in form.fields}
    hook, secret = fields["webhookUrl"], fields["webhookSecret"]
    assert (hook.label, hook.help, hook.kind) == (
        "Webhook", "A URL that is told of the end of each run.", "text"
    )  # fmt: skip
    assert (secret.label, secret.kind) == ("Secret that signs it", "password")
    assert (fields["maxRetries"].label, fields["maxRetries"].help) == ("Max retries", "")
    assert fields.keys() == body_of(form.method, form.path)().fields.keys() - {"managedBy"}


def test_of_a_list_that_is_far_too_long_a_part_is_shown_again(cast):
    many = {f"on.{n}.outcome": "" for n in range(900)}
    path = f"/console/environments/{cast.environment.id}/triggers/new"
    page = visitor(cast.admin).post(path, many | TYPED)
    assert page.status_code == 400
    assert len(re.findall(r'name="on\.\d+\.outcome"', page.content.decode())) == 100


def test_a_value_that_the_api_refuses_for_its_length_is_not_taken_apart():
    assert values_of("1, a") == [1, "a"]
    text = "1, a," * 20_000
    assert values_of(text) == [text]
