"""API.md describes each route: its callers, its fields and parameters, its answers, and its audit actions."""

import json
import re

import pytest

from pipedai.api import service
from pipedai.api.error_codes import ErrorCode
from pipedai.env import BASE_DIR
from testing.probes.api_urls import is_metered, is_throttled, operation_of_action
from testing.probes.error_codes import statuses_by_code
from testing.world.routes import ROUTES
from triggers.runs.serializers import RunDetailSerializer, RunSerializer

TEXT = (BASE_DIR / "API.md").read_text()
SECTIONS = {
    f"{method} {re.sub(r':[A-Za-z]+', ':id', path[1:])}": text
    for method, path, text in re.findall(
        r"^### `([A-Z]+) (/\S*)`\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL
    )
}

WITH_BODY = [route for route in ROUTES if route.method in {"POST", "PATCH"}]
CHANGES = [route for route in ROUTES if route.method != "GET"]
READS = [route for route in ROUTES if route.method == "GET"]


def section_of(route):
    heading = re.sub(r"<uuid:\w+>", ":id", f"{route.method} {route.route}")
    assert heading in SECTIONS, (
        f"API.md has no section for {route}: see An endpoint, CONTRIBUTING.md"
    )
    return SECTIONS[heading]


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
def test_every_field_of_a_body_is_explained(route):
    body = operation_of_action(*route.key).body
    assert body or not route.body, f"the @Operation of the action of {route} has no `body`"
    text = section_of(route)
    if "Any of the fields that creating takes" in text:
        text += SECTIONS["POST environments/:id/triggers"]
    missing = [name for name in (body().fields if body else ()) if f"`{name}`" not in text]
    assert missing == [], f"API.md does not explain these fields in the section of {route}"


@pytest.mark.parametrize("route", READS, ids=str)
def test_every_parameter_of_a_list_is_explained(route):
    filters = operation_of_action(*route.key).filters
    text = section_of(route)
    if "Parameters as for" in text:
        text += SECTIONS["GET triggers/:id/runs"]
    names = filters.names() if filters else ()
    missing = [name for name in names if not re.search(rf"`\??{name}\b=?", text)]
    assert missing == [], f"API.md does not explain these parameters in the section of {route}"


def test_a_single_runs_further_fields_are_named():
    further = set(RunDetailSerializer().fields) - set(RunSerializer().fields)
    assert all(f"`{name}`" in SECTIONS["GET runs/:id"] for name in further)


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_every_status_that_a_caller_gets_is_there(route):
    """Success may be spelled out by the section above, as for the calls of a worker."""
    for status in set(route.statuses.values()):
        if status == 200 and "/runs/" in route.route and route.method == "POST":
            continue
        assert re.search(rf"\b{status}\b", section_of(route)), (
            f"the section of {route} in API.md does not name {status}"
        )


@pytest.mark.parametrize("route", [r for r in ROUTES if r.changes], ids=str)
def test_what_changes_something_says_what_it_tells_the_audit_log(route):
    if route.route.endswith(("heartbeat", "events")):
        assert "Audit" not in section_of(route)
    else:
        assert re.search(r"Audit:\s`", section_of(route))


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_who_may_call_is_said(route):
    section = section_of(route)
    (chapter,) = [text for text in re.split(r"^## ", TEXT, flags=re.MULTILINE) if section in text]
    opening = chapter.partition("\n### ")[0]
    said = f"{section}\n{opening}".lower()
    where = f"in the section of {route} in API.md, or in the opening of its chapter"
    assert re.search(rf"\b({route.as_.name})", said), f"lacking {where}: {route.as_.name}"
    assert route.keys or re.search(r"\bsessions?\b", said), f"lacking {where}: sessions alone"


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_throttled_route_says_429_and_its_rate(route):
    throttled = is_throttled(*route.key)
    says_so = re.search(r"\b429\b", section_of(route)) is not None
    # These answer only so many calls at the same time, which is not a rate.
    crowded = str(route) in (
        "GET workers/:worker/poll",
        "POST workers/:worker/claim-next",
        "GET environments/:environment/stats",
        "GET environments/:environment/events/stream",
        "GET runs/:run/events/stream",
        "GET workers/:worker/events/stream",
        "GET runs/:run/explain",
        "GET triggers/:trigger/explain",
    )
    assert says_so is (throttled or crowded or is_metered(*route.key))
    shown = re.sub(r"<uuid:\w+>", ":id", route.route)
    rates = [
        re.sub(r":\w+", ":id", path.replace("…", "environments/:id"))
        for path in re.findall(
            rf"`{route.method} /?(\S+)`", TEXT.split("### Rates")[1].split("###")[0]
        )
    ]
    assert (shown in rates) is throttled


class TestErrorCodes:
    def test_the_table_of_errors_has_all(self):
        assert set(statuses_by_code()) == set(ErrorCode)

    def test_the_schema_has_all_and_each_error_has_one(self):
        parts = json.loads(service.document())["components"]
        assert parts["schemas"]["ErrorCode"]["enum"] == list(ErrorCode)
        for answer in parts["responses"].values():
            body = answer["content"]["application/json"]["schema"]["$ref"]
            error = parts["schemas"][body.rpartition("/")[2]]
            assert "code" in error["required"]
            assert error["properties"]["code"] == {"$ref": "#/components/schemas/ErrorCode"}

    @pytest.mark.parametrize("route", CHANGES, ids=str)
    def test_each_409_is_named_in_its_section_and_in_the_schema(self, route):
        conflicts = {code for code, statuses in statuses_by_code().items() if 409 in statuses}
        reason = operation_of_action(*route.key).errors.get(409, "")
        named = {code for code in conflicts if f"`{code}`" in section_of(route)}
        assert named == {code for code in conflicts if f"`{code}`" in reason}
        assert bool(named) is (re.search(r"\b409\b", section_of(route)) is not None)
