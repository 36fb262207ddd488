"""Somebody decides about a call in the console, and reads all that it is to do before."""

import re

import pytest

from console.tests.visits import text_of, visitor
from pipedai.sql import database_now
from testing.world.runs import QUESTION, RULES, Runs, allow
from triggers.models import Trigger

TYPED = {"name": "It", "prompt": "Do.", "mcpUrl": "https://mcp.example/", "timezone": "UTC"}
HOSTILE = "<script>alert(1)</script> pay\u202e001 to\u200b eve"


@pytest.fixture
def asked(cast):
    """Returns runs of which one waits, and the path of the page about its call."""
    allow(cast.worker.worker_id, 2)
    runs = Runs(cast, cast.add_trigger(name=HOSTILE), now=database_now())
    run_id = runs.running()
    Trigger.objects.filter(id=runs.trigger_id).update(approvals=RULES)
    runs.ask(run_id, approval={**QUESTION, "arguments": {"text": HOSTILE}})
    return runs, run_id, f"/console/approvals/{runs.approval_of(run_id)['id']}"


def test_what_is_shown_is_text_and_hides_nothing(cast, asked):
    _, _, path = asked
    page = visitor(cast.operator).get(path)
    assert "<script>alert" not in page.content.decode()
    assert r'"text": "<script>alert(1)</script> pay\u202e001 to\u200b eve"' in text_of(page)
    assert "Operators and above see" in text_of(visitor(cast.viewer).get(path))


def test_an_expiry_says_that_the_call_was_not_made(cast, asked):
    runs, _, path = asked
    runs.wait(minutes=10)
    runs.expire_queued()
    text = text_of(visitor(cast.operator).get(path))
    assert "Nobody decided in time: the call was not made, and the run failed." in text
    assert "Exactly this, once." not in text


@pytest.mark.parametrize(("decision", "status"), [("approve", "approved"), ("reject", "rejected")])
def test_somebody_decides_with_a_reason(cast, asked, decision, status):
    runs, run_id, path = asked
    client = visitor(cast.operator)
    assert "See what it is to do" in text_of(
        client.get(f"/console/environments/{cast.environment.id}/attention")
    )
    answer = client.post(path, {"decision": decision, "reason": " Not today. "})
    assert (answer.status_code, answer["Location"]) == (303, path)
    approval = runs.approval_of(run_id)
    assert (approval["status"], approval["reason"]) == (status, "Not today.")
    assert (approval["decided_by"], runs.stored(run_id)["status"]) == (cast.operator.id, "queued")
    text = text_of(client.get(path))
    assert f"{cast.operator.email} decided" in text
    assert "Approve this call" not in text
    again = client.post(path, {"decision": decision})
    assert again.status_code == 409
    assert f"Somebody has {status} it already." in text_of(again)


def rule(number, tools, role="admin", seconds="86400", **more):
    """Returns what the form sends of one rule."""
    typed = {"tools": tools, "when": "always", "approverRole": role, **more}
    typed["expiresAfterSeconds"] = seconds
    return {f"approvals.{number}.{name}": value for name, value in typed.items()}


def test_rules_are_added_and_removed_by_buttons_that_keep_what_was_typed(cast):
    path, admin = f"/console/triggers/{cast.trigger_id}/edit", visitor(cast.admin)
    typed = {**TYPED, "name": "Typed", **rule(0, "pay", "owner"), **rule(3, "send_mail")}
    page = admin.post(path, {**typed, "add": "approvals"})
    shown = page.content.decode()
    assert page.status_code == 200
    assert 'value="Typed"' in shown
    assert ">\nsend_mail</textarea>" in shown
    assert shown.count(">Remove rule") == 3
    (added,) = re.findall(r'name="(.*?)"[^>]* autofocus', shown)
    assert added == "approvals.2.tools"
    shown = admin.post(path, {**typed, "remove": "approvals.0"}).content.decode()
    assert shown.count(">Remove rule") == 1
    assert 'name="approvals.0.tools"' in shown
    assert ">\npay</textarea>" not in shown
    assert Trigger.objects.get(id=cast.trigger_id).approvals is None


def test_rules_are_saved_and_what_is_wrong_is_said_at_its_field(cast):
    path, admin = f"/console/triggers/{cast.trigger_id}/edit", visitor(cast.admin)
    wrong = {**rule(0, "*"), **rule(1, " ", "viewer", "5"), **rule(2, f"pay\n{'x' * 201}")}
    page = admin.post(path, {**TYPED, **wrong})
    said = dict(re.findall(r'id="field-(approvals.*?)-error">(.*?)</p>', page.content.decode()))
    assert page.status_code == 400
    assert list(said) == [
        *(f"approvals.1.{name}" for name in ("tools", "approverRole", "expiresAfterSeconds")),
        "approvals.2.tools",
    ]
    page = admin.post(path, {**TYPED, **{k: v for n in range(11) for k, v in rule(n, "a").items()}})
    assert "Must not have more than 10 rules." in text_of(page)

    right = {
        **rule(0, "* \npay"),
        **rule(7, "pay\r\nsend_mail ", "owner", "60", notRequester="true"),
    }
    assert admin.post(path, {**TYPED, **right, **rule("9" * 900, "x")}).status_code == 303
    kept = Trigger.objects.get(id=cast.trigger_id).approvals
    assert [each["tools"] for each in kept] == ["*", ["pay", "send_mail"]]
    assert (kept[1]["approverRole"], kept[1]["notRequester"], kept[1]["expiresAfterSeconds"]) == (
        *("owner", True, 60),
    )
    form = admin.get(path).content.decode()
    assert ">\npay\nsend_mail</textarea>" in form
    shown = text_of(admin.get(f"/console/triggers/{cast.trigger_id}"))
    assert "Calls of any tool wait until somebody with the role admin or above approves" in shown
    assert admin.post(path, TYPED).status_code == 303
    assert Trigger.objects.get(id=cast.trigger_id).approvals is None


def test_the_lists_lead_to_it_and_the_run_says_what_it_waits_for(cast, asked):
    _, run_id, path = asked
    client = visitor(cast.viewer)
    listed = client.get(f"/console/environments/{cast.environment.id}/approvals?status=pending")
    assert f'href="{path}"' in listed.content.decode()
    assert "Waiting for approval" in text_of(client.get(f"/console/runs/{run_id}"))
