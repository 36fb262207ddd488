"""API.md describes each route: what it takes, what it answers, and what it tells the audit log."""

import re

import pytest

from accounts import serializers as accounts
from audit.filters import AuditFilters
from pipedai.api.error_codes import ErrorCode
from pipedai.api.permissions import IsPublic, IsSignedIn
from pipedai.api.tests.test_permissions import EXPECTED
from pipedai.env import BASE_DIR
from testing.probes.api_urls import is_metered, is_throttled, permission_of
from testing.world.routes import ROUTES
from triggers import serializers as triggers
from triggers.filters import EnvironmentRunFilters, RunFilters, TriggerFilters
from workers import serializers as workers
from workers.enrollment import serializers as enrollments
from workers.filters import WorkerFilters
from workspaces import serializers as workspaces
from workspaces.permissions import IsAdmin, IsOperator, IsOwner, IsViewer

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
    f"POST {ENVIRONMENT}/enrollments": enrollments.EnrollmentBody,
    "POST enrollments/device": enrollments.PairingBody,
    "POST enrollments/redeem": enrollments.RedeemBody,
    "POST workspaces/:id/workers/registration-token": workers.RegistrationTokenBody,
    "POST workers/register": workers.RegisterBody,
    "PATCH workers/:id": workers.WorkerBody,
    "POST workers/:id/runs/:id/claim": workers.ClaimBody,
    "POST workers/:id/runs/:id/complete": workers.CompleteBody,
}
FILTERS = {
    f"GET {ENVIRONMENT}/triggers": TriggerFilters,
    "GET triggers/:id/runs": RunFilters,
    f"GET {ENVIRONMENT}/workers": WorkerFilters,
    "GET workspaces/:id/workers": WorkerFilters,
    f"GET {ENVIRONMENT}/audit-log": AuditFilters,
}


def section_of(route):
    return SECTIONS[re.sub(r"<uuid:\w+>", ":id", f"{route.method} {route.route}")]


@pytest.mark.parametrize("name", BODIES)
def test_every_field_of_a_body_is_explained(name):
    for field in BODIES[name]().fields:
        assert f"`{field}`" in SECTIONS[name], f"API.md does not explain {field} below {name}"


@pytest.mark.parametrize("name", FILTERS)
def test_every_parameter_of_a_list_is_explained(name):
    for parameter in FILTERS[name].names():
        assert re.search(rf"`\??{parameter}\b=?", SECTIONS[name]), (
            f"API.md does not explain ?{parameter} below {name}"
        )


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


# How a section, or the opening of its chapter, says who may call.
CALLERS = {
    IsPublic: "public",
    IsSignedIn: r"sessions?\b|the worker itself",
    IsViewer: "viewer|anyone",
    IsOperator: "operator",
    IsAdmin: "admin",
    IsOwner: "owner",
}


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_who_may_call_is_said(route):
    section = section_of(route)
    (chapter,) = [text for text in re.split(r"^## ", TEXT, flags=re.MULTILINE) if section in text]
    opening = chapter.partition("\n### ")[0]
    said = CALLERS[permission_of(*route.key)]
    assert re.search(rf"\b({said})", f"{section}\n{opening}".lower())


def test_every_body_is_known_here():
    takes_fields = {
        re.sub(r"<uuid:\w+>", ":id", f"{route.method} {route.route}")
        for route in ROUTES
        if route.body is not None and route.method != "GET"
    }
    # A PATCH of a trigger takes the fields of its creation.
    assert takes_fields - set(BODIES) == {"PATCH triggers/:id"}


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_throttled_route_says_429_and_its_rate(route):
    throttled = is_throttled(*route.key)
    says_so = re.search(r"\b429\b", section_of(route)) is not None
    # A worker has only so many polls under way at once, which is no rate.
    crowded = str(route) == "GET workers/:worker/poll"
    assert says_so is (throttled or crowded or is_metered(*route.key))
    shown = re.sub(r"<uuid:\w+>", ":id", route.route)
    rates = [
        re.sub(r":\w+", ":id", path.replace("…", "environments/:id"))
        for path in re.findall(
            rf"`{route.method} /?(\S+)`", TEXT.split("### Rates")[1].split("###")[0]
        )
    ]
    assert (shown in rates) is throttled


def test_every_error_code_is_in_the_table_of_errors():
    errors = TEXT.partition("### Errors")[2].partition("\n### ")[0]
    assert set(re.findall(r"^\| `([a-z_]+)` \| \d", errors, re.MULTILINE)) == set(ErrorCode)
