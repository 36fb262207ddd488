"""Somebody decides about a call in the console, and reads all that it is to do before."""

import pytest

from console.tests.visits import text_of, visitor
from pipedai.sql import database_now
from testing.world.runs import QUESTION, RULES, Runs, allow
from triggers.models import Trigger

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


def test_a_bad_rule_is_named_at_its_field(cast):
    typed = {"name": "It", "prompt": "Do.", "mcpUrl": "https://mcp.example/", "timezone": "UTC"}
    rules = '[{"tools": "*"}, {"tools": ["send_mail"], "approverRole": "viewer"}]'
    path, admin = f"/console/triggers/{cast.trigger_id}/edit", visitor(cast.admin)
    wrong = admin.post(path, {**typed, "approvals": rules})
    assert "1.approverRole: " in text_of(wrong)
    assert admin.post(path, {**typed, "approvals": '[{"tools": "*"}]'}).status_code == 303
    page = text_of(admin.get(f"/console/triggers/{cast.trigger_id}"))
    assert "Calls of any tool wait until somebody with the role admin or above approves" in page


def test_the_lists_lead_to_it_and_the_run_says_what_it_waits_for(cast, asked):
    _, run_id, path = asked
    client = visitor(cast.viewer)
    listed = client.get(f"/console/environments/{cast.environment.id}/approvals?status=pending")
    assert f'href="{path}"' in listed.content.decode()
    assert "Needs a decision" in text_of(client.get(f"/console/runs/{run_id}"))
