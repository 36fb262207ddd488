"""POST /triggers/:id/rotate-mcp-token"""

import pytest

from testing.probes.audited import audited
from testing.probes.shapes import A_TIME, invalid
from testing.probes.tables import columns_with
from testing.processes.worker_calls import WorkerCalls
from testing.world.runs import Runs
from triggers.models import Trigger

OLD, NEW = "the-planted-old-token", "the-planted-new-token"


@pytest.fixture
def url(cast):
    client = cast.client(cast.admin)
    client.patch(f"/api/v1/triggers/{cast.trigger_id}", {"mcpHeaders": {"Authorization": OLD}})
    return f"/api/v1/triggers/{cast.trigger_id}/rotate-mcp-token"


def rotate(cast, url, headers=None):
    body = {"mcpHeaders": {"Authorization": NEW} if headers is None else headers}
    return cast.client(cast.admin).post(url, body)


def test_it_answers_the_trigger_without_the_token(cast, url):
    before = cast.client(cast.operator).get(f"/api/v1/triggers/{cast.trigger_id}").json()
    response = rotate(cast, url)
    assert response.status_code == 200
    assert response.json() == {**before, "updatedAt": A_TIME}
    assert NEW not in response.content.decode()
    assert columns_with(OLD, NEW) == []


def test_it_is_audited_as_itself_and_not_as_an_update(cast, url):
    with audited() as rows:
        rotate(cast, url)
    metadata = rows.the_only(
        "mcp-token.rotated",
        by=("user", cast.admin.id),
        on=("trigger", cast.trigger_id),
        within=cast.environment.id,
    )
    assert metadata == {}


def test_runs_that_were_not_handed_out_use_the_new_headers(cast, url):
    Runs(cast, cast.trigger_id).queue()
    rotate(cast, url)
    (run,) = WorkerCalls(cast.worker).poll().json()["runs"]
    assert run["mcpHeaders"] == {"Authorization": NEW}


def test_a_trigger_without_headers_gets_them(cast, url):
    Trigger.objects.update(mcp_headers=None, mcp_key=None)
    assert rotate(cast, url).json()["hasMcpHeaders"] is True


def test_all_headers_are_replaced(cast, url):
    rotate(cast, url, {"x-other": "another-secret"})
    Runs(cast, cast.trigger_id).queue()
    (run,) = WorkerCalls(cast.worker).poll().json()["runs"]
    assert run["mcpHeaders"] == {"x-other": "another-secret"}


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, {"mcpHeaders": ["This field is required."]}),
        ({"mcpHeaders": None}, {"mcpHeaders": ["This field may not be null."]}),
        ({"mcpHeaders": {}}, {"mcpHeaders": ["Must hold at least one header."]}),
        (
            {"mcpHeaders": [1]},
            {"mcpHeaders": ["Must be an object of header names and values."]},
        ),
        (
            {"mcpHeaders": {"a": "1", "A": "2"}},
            {"mcpHeaders": ["Two names are alike but for case."]},
        ),
        (
            {"mcpHeaders": {"a": "x"}, "mcpUrl": "https://x.example/"},
            {"mcpUrl": ["Unknown field."]},
        ),
    ],
    ids=str,
)
def test_a_bad_field_is_named_and_the_old_token_stays(cast, url, body, errors):
    box = bytes(Trigger.objects.get().mcp_headers or b"")
    with audited() as rows:
        response = cast.client(cast.admin).post(url, body)
    assert (response.status_code, response.json()) == (400, invalid(errors))
    assert bytes(Trigger.objects.get().mcp_headers or b"") == box
    assert rows == []
