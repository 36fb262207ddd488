"""API.md describes each route: what it takes, what it answers, and what it tells the audit log."""

import json
import re

import pytest

from accounts import serializers as accounts
from audit.filters import AuditFilters
from pipedai.api.tests.test_permissions import EXPECTED
from pipedai.env import BASE_DIR
from testing.cast import bearer
from testing.routes import ROUTES, set_stage
from triggers import serializers as triggers
from triggers.filters import EnvironmentRunFilters, RunFilters, TriggerFilters
from workers import serializers as workers
from workers.filters import WorkerFilters
from workspaces import serializers as workspaces

TEXT = (BASE_DIR / "API.md").read_text()
SECTIONS = {
    f"{method} {re.sub(r':[A-Za-z]+', ':id', path[1:])}": text
    for method, path, text in re.findall(
        r"^### `([A-Z]+) (/\S*)`\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL
    )
}

ENVIRONMENT = "environments/:id"
BODIES = {
    "POST auth/register": accounts.RegisterBody,
    "POST auth/login": accounts.LoginBody,
    "POST auth/change-password": accounts.ChangePasswordBody,
    "POST workspaces": workspaces.NameBody,
    "POST workspaces/:id/environments": workspaces.NameBody,
    f"PATCH {ENVIRONMENT}": workspaces.NameBody,
    f"POST {ENVIRONMENT}/members": workspaces.MemberBody,
    f"PATCH {ENVIRONMENT}/members/:id": workspaces.RoleBody,
    f"POST {ENVIRONMENT}/api-keys": workspaces.ApiKeyBody,
    f"POST {ENVIRONMENT}/triggers": triggers.TriggerBody,
    f"POST {ENVIRONMENT}/schedule-preview": triggers.SchedulePreviewBody,
    "POST triggers/:id/rotate-mcp-token": triggers.RotateBody,
    "POST triggers/:id/run": triggers.RunBody,
    "POST workers/register": workers.RegisterBody,
    "PATCH workers/:id": workers.WorkerBody,
    "POST workers/:id/runs/:id/claim": workers.ClaimBody,
    "POST workers/:id/runs/:id/complete": workers.CompleteBody,
}
FILTERS = {
    f"GET {ENVIRONMENT}/triggers": TriggerFilters,
    "GET triggers/:id/runs": RunFilters,
    f"GET {ENVIRONMENT}/workers": WorkerFilters,
    f"GET {ENVIRONMENT}/audit-log": AuditFilters,
}


def section_of(route):
    return SECTIONS[re.sub(r"<uuid:\w+>", ":id", f"{route.method} {route.route}")]


@pytest.mark.parametrize("name", BODIES)
def test_every_field_of_a_body_is_explained(name):
    for field in BODIES[name]().fields:
        assert f"`{field}`" in SECTIONS[name]


@pytest.mark.parametrize("name", FILTERS)
def test_every_parameter_of_a_list_is_explained(name):
    for parameter in FILTERS[name].names():
        assert re.search(rf"`\??{parameter}\b=?", SECTIONS[name]), parameter


def test_the_runs_of_an_environment_have_two_parameters_more():
    more = set(EnvironmentRunFilters.names()) - set(RunFilters.names())
    assert more == {"workerId", "triggerId"}
    assert all(f"`{name}`" in SECTIONS[f"GET {ENVIRONMENT}/runs"] for name in more)


def test_a_single_runs_further_fields_are_named():
    further = set(triggers.RunDetailSerializer().fields) - set(triggers.RunSerializer().fields)
    assert all(f"`{name}`" in SECTIONS["GET runs/:id"] for name in further)


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_every_status_that_a_caller_gets_is_there(route):
    """Success may be spelled out by the section above, as for the calls of a worker."""
    for status in set(EXPECTED[str(route)].split()):
        if status == "200" and "/runs/" in route.route and route.method == "POST":
            continue
        assert re.search(rf"\b{status}\b", section_of(route)), status


@pytest.mark.parametrize("route", [r for r in ROUTES if r.changes], ids=str)
def test_what_changes_something_says_what_it_tells_the_audit_log(route):
    if route.route.endswith("heartbeat"):
        assert "Audit" not in section_of(route)
    else:
        assert re.search(r"Audit:\s`", section_of(route))


def _has_example(route):
    """But for what the stage has none of; test_docs holds these against their serializers."""
    bare = ("/deliveries", "/ticks", "/redeliver", "/test-webhook")
    return "```json" in section_of(route) and not route.route.endswith(bare)


def _shape(value):
    """The keys of an object and of the objects in it, in their order; of lists, the first item's."""
    if isinstance(value, dict):
        return {name: _shape(item) for name, item in value.items()}
    return _shape(value[0]) if isinstance(value, list) and value else None


@pytest.mark.parametrize("route", [r for r in ROUTES if _has_example(r)], ids=str)
def test_the_example_of_an_answer_is_what_is_answered(cast, route):
    stage = set_stage(cast)
    clients = {"workers/<uuid:worker_id>/": cast.worker_client()}
    client = next((c for path, c in clients.items() if route.route.startswith(path)), None)
    if route.route == "workers/register":
        client = bearer(cast.mint("wrk"))
    answer = route.send(client or cast.client(cast.owner), route.url(stage), cast).json()
    answer = answer.get("items", answer)
    found = re.search(r"^```json\n(.*?)^```", section_of(route), re.MULTILINE | re.DOTALL)
    assert found is not None
    example = json.loads(found[1])
    # What hangs on the data: an audit row's metadata, a run's payload and its headers.
    free = {"metadata", "mcpHeaders", "payload"}

    def shape(value):
        return re.sub(rf"'({'|'.join(free)})': (None|{{[^}}]*}})", r"'\1': …", str(_shape(value)))

    assert shape(answer) == shape(example)
